"""Where calls are computed. `here` is this process, `local` is processes of this machine, `ray` a cluster."""
