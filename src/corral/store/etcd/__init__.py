"""The store that several masters share: etcd v3 (3.4 and newer) through its JSON gateway."""

from corral.store.etcd.gateway import Settings, make_tls
from corral.store.etcd.store import EtcdStore, open_etcd

__all__ = ["EtcdStore", "Settings", "make_tls", "open_etcd"]
