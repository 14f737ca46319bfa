"""Workers whose codec processes are on the nodes of a Ray cluster (`worker.py --engine ray`, docs/ray.md)."""
