"""The measuring: page cache, memory, machine, the order of runs and the processes they run in."""
