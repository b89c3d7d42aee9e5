"""Float networks. Each module of this folder that defines an ``SRNetwork`` is found by itself."""

from __future__ import annotations

from srquant.networks.base import Edges as Edges
from srquant.networks.base import SRNetwork as SRNetwork
from srquant.networks.base import State as State
from srquant.networks.recognising import NETWORKS as NETWORKS
from srquant.networks.recognising import all_networks as all_networks
from srquant.networks.recognising import network_named as network_named
from srquant.networks.recognising import open_network as open_network
