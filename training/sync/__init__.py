"""Keeps a run in a remote store, so that another machine can go on with it.

* `stores.py`: what a remote store can do; `fsspec_store.py` and `rclone_store.py` are the two kinds there are.
* `remote_run.py`: how a run lies in a store, and how a checkpoint gets there so that it counts only when it is whole.
* `push.py`: brings the newest state there in the background; `pull.py` fetches it on a new machine.
* `lease.py`: one machine a run.
"""
