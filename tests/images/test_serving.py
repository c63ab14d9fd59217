"""The layers that are served, while several images become startable and others are unpacked or removed."""

import threading
from collections.abc import ItemsView
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edge.images.image_store import link_of
from edge.images.layers import LayerFacts, LayerFolders
from edge.images.namespace import ServedLayer
from edge.images.oci.client import RegistryClient
from edge.images.oci.registries import Registries
from edge.images.serving import Layer, Serving


class _LookedThrough(dict[str, Layer]):
    """Says when it is looked through, and takes its time."""

    def __init__(self, layers: dict[str, Layer]) -> None:
        super().__init__(layers)
        self.looked_through = threading.Event()

    def items(self) -> ItemsView[str, Layer]:  # type: ignore[override]  # dict has a view class of its own
        self.looked_through.set()
        threading.Event().wait(0.2)
        return ItemsView(self)


def _add(serving: Serving, slot: int) -> str:
    layer_id = f"{slot:064x}"
    facts = LayerFacts(layer_id, slot, "sha256:0", 1, "sha256:0", 2, 1, "registry.example/app:1")
    serving._put(Layer(facts, ServedLayer(slot, layer_id, link_of(layer_id), (), None, None), None))
    return layer_id


def test_a_layer_that_is_added_while_another_is_removed_is_not_forgotten(tmp_path: Path) -> None:
    """As when one image is removed while another one's layer was just unpacked."""
    serving = Serving(tmp_path, LayerFolders(tmp_path), RegistryClient(Registries(()), {}), lambda _: None, 1.0)
    gone, stays = _add(serving, 1), _add(serving, 2)
    before = _LookedThrough(dict(serving.layers))
    serving.layers = before
    with ThreadPoolExecutor(1) as beside:
        removing = beside.submit(serving.close, gone)
        assert before.looked_through.wait(10)
        added = _add(serving, 3)
        removing.result()
    assert sorted(serving.layers) == [stays, added]
