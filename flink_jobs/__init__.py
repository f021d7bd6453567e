"""Where it runs: topologies of jobs, their settings and the command line; one job is one file."""
