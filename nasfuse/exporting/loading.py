"""What follows the network in model.py: weights, preprocessing, prediction. Text, not run here."""

LOADING = '''def load(weights: str | Path | None = None) -> Network:
    """The network in evaluation mode; without a path, the weights beside this file."""
    path = Path(weights) if weights else Path(__file__).with_name("model.safetensors")
    network = Network()
    network.load_state_dict(read_safetensors(path))
    return network.eval()


def predict(
    image: str | Path, network: Network | None = None
) -> list[tuple[str, float]]:
    """Each class with its probability for an image file, the likeliest first."""
    network = load() if network is None else network
    device = next(network.parameters()).device
    with torch.inference_mode():
        images = normalise(read_image(image).to(device))
        shares = network(images)[0].softmax(0).tolist()
    return sorted(zip(CLASSES, shares, strict=True), key=lambda pair: -pair[1])


def read_image(path: str | Path) -> Tensor:
    """An image file as uint8 (1, channels, SIDE, SIDE): upright, the middle square.

    What is transparent becomes white; 16 bits a pixel become 8.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ImportError("reading images needs Pillow: pip install pillow") from None

    with Image.open(path, formats=("JPEG", "PNG", "WEBP", "BMP", "GIF")) as image:
        image.draft(None, (2 * SIDE, 2 * SIDE))  # a JPEG at a fraction of its size
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I"):
            image = image.convert("I").point(lambda value: value * (1 / 256) + 0)
        elif image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        plain = image.convert("L" if len(MEAN) == 1 else "RGB")
        square = ImageOps.fit(plain, (SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8)
    return pixels.view(1, SIDE, SIDE, -1).permute(0, 3, 1, 2)


def normalise(images: Tensor) -> Tensor:
    """uint8 images (batch, channels, height, width) as the network wants them.

    The middle square, at the resolution, normalised; with as many channels as MEAN.
    """
    mean, std = (torch.tensor(x, device=images.device) for x in (MEAN, STD))
    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = images[..., top : top + side, left : left + side]
    scaled = (square.float() / 255 - mean[:, None, None]) / std[:, None, None]
    if side == RESOLUTION:
        return scaled
    size = (RESOLUTION, RESOLUTION)
    return nn.functional.interpolate(scaled, size, mode="bilinear", antialias=True)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name: eight bytes of length, a JSON header, then the raw numbers."""
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    types = {"F32": torch.float32, "I64": torch.int64}
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        # copied, because numbers that do not start at a multiple of their size cannot be viewed
        piece = torch.frombuffer(data[start:end], dtype=types[entry["dtype"]])
        tensors[name] = piece.view(entry["shape"])
    return tensors


def main() -> None:
    """Print the three likeliest classes of each image file named on the command line."""
    if len(sys.argv) < 2:
        sys.exit("usage: python model.py IMAGE ...")
    network = load()
    for image in sys.argv[1:]:
        try:
            best = predict(image, network)[:3]
        except (ImportError, OSError) as error:  # no Pillow, no such file, or no image
            sys.exit(f"{image}: {error}")
        print(f"{image}: " + ", ".join(f"{name!r} {share:.1%}" for name, share in best))


if __name__ == "__main__":
    main()
'''
