"""cost and spaces: networks and spaces on paper, without a study."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from nasfuse.cli import completing
from nasfuse.cli.options import Json, Quiet
from nasfuse.errors import DocumentError


def cost(
    architecture: Annotated[
        str,
        typer.Argument(
            help="A published network, or an architecture as JSON or YAML.",
            autocompletion=completing.architectures,
        ),
    ],
    by_layer: Annotated[bool, typer.Option("--by-layer", help="One line a layer.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Print what an architecture costs, by our count and by thop's; with -q the MACs alone."""
    from nasfuse.network import cost as cost_of
    from nasfuse.network import thop_macs
    from nasfuse.plan import plan
    from nasfuse.references import load_architecture
    from nasfuse.screens import make_console, print_json, print_layers, say

    document = load_architecture(architecture)
    price, thop = cost_of(document), thop_macs(document)
    layers = list(plan(document)) if by_layer else []
    if as_json:
        counts = {"macs": price.macs, "params": price.params, "thop": thop}
        rows = [
            {"name": x.name, "shape": x.shape, "macs": x.cost.macs, "params": x.cost.params}
            for x in layers
        ]
        listing = {"layers": rows} if by_layer else {}
        print_json({"schema_version": 1, "key": document.key, **counts, **listing})
        return
    if quiet:
        print(price.macs)
        return
    console = make_console(False)
    if by_layer:
        print_layers(console, layers)
    say(
        console,
        f"{price.macs:,} MACs, {price.params:,} parameters for images of {document.resolution} "
        f"pixels; thop counts {thop:,} MACs (with batch norm and pooling)",
    )


def spaces(
    name: Annotated[
        str | None,
        typer.Argument(help="A space to print.", autocompletion=completing.spaces),
    ] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Print a complete architecture of the space.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """List the search spaces and the published networks, or print a space."""
    from nasfuse.references import reference_names
    from nasfuse.screens import print_json
    from nasfuse.space import find_space, load_space, read_space, space_names

    if name:
        try:
            find_space(name)
        except DocumentError as error:
            raise error.for_verb("nasfuse spaces" + " --example" * example, "--space") from None
    if example:
        print_json(load_space(name or "default").sample(0).architecture.document())
    elif name and as_json:
        print_json({"schema_version": 1, "space": name, "document": read_space(name)})
    elif name:
        sys.stdout.write(find_space(name).read_text(encoding="utf-8"))
    elif as_json:
        sizes = {known: load_space(known).size for known in space_names()}
        print_json({"schema_version": 1, "spaces": sizes, "architectures": reference_names()})
    elif quiet:
        print("\n".join(space_names()))
    else:
        for known in space_names():
            space = load_space(known)
            text = f"about {space.size:.0e} networks from {space.resolution} pixels a side"
            print(f"{known:<12} {text}; {', '.join(space.fusions)}")
        print(f"published networks, for nasfuse cost: {', '.join(reference_names())}")
