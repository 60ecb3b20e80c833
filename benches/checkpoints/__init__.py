"""The data that the benchmarks load: layouts, the files that hold them, the models they fill."""
