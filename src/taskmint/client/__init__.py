"""What a workload uses to ask for a task; what `taskmint run` is built on."""
