"""Lists of arguments that no user means."""

from __future__ import annotations

from random import Random

from hypothesis import given
from tests.fuzz.damage import seeds
from tests.fuzz.lab import Lab, fuzzing

NUMBERS = (
    *("-1", "0", "1", "2", "3", "4", "16", "1000000000", "9" * 30, "-0", "nan", "inf", "-inf", "1e30", "0.5", "1e-9"),
    *("", " ", "x", "½", "٣", "0x10", "1_0", "+4", "None", "--", "1,2"),
)
TEXTS = ("", " ", "x", "é", "日本", "*", "=", "a=b=c", "[", "\n", "../..", "-1", "{}", "'", "body.*", "%s", "x" * 300)
FILES = (
    *("edsr.pth", "swinir.pth", "edsr_minmax.safetensors", "edsr_int8.safetensors", "edsr.onnx", "p.png"),
    *("low", "photos", "Set", "Set/x4", "nowhere", "nowhere/x.png", "p.png/x", "é.png", "x" * 300, ".", ""),
)
TARGETS = (
    *("OUT/a.safetensors", "OUT/a.png", "OUT/a.json", "OUT/a.onnx", "OUT", "OUT/new/b.png", "OUT/a", "OUT/.png", ""),
    *("p.png", "low", "p.png/a.safetensors", "OUT/é.png", "OUT/.safetensors", f"OUT/{'x' * 300}.png"),
    f"OUT/{'x' * 240}.safetensors",
)
METHODS = ("minmax", "percentile", "mse", "plq", "dobi", "", "MSE", "x")
LEARNING = ("oaptq", "2dquant", "srquant")
"""Methods that take long, unless told how long."""
SETTINGS = (
    *(
        "weights.granularity=per_channel",
        "grid=int8",
        "quantile=2",
        "quantile=nan",
        "quantile=",
        "=",
        "x=1",
        "weights=1",
        "bits=3",
    ),
    *(
        "finetuning.epochs=0",
        "finetuning.steps=1",
        "finetuning.batch=-1",
        "finetuning.rate=inf",
        "finetuning.micro_batch=0",
    ),
    *("observation.batch=0", "observation.ema_decay=2", "layers=x=8", "name=x", "patches=0", "patch=-1", "..=1"),
)
TRAINING = ("network.channels=8", "network.blocks=1", "training.batch=1", "training.patch=4", "training.validation=1")
LAYERS = ("*=8", "tail.*=float", "body.0.*=4/6", "*=", "=8", "*=1", "*=8/", "*=x/y", "[=3", "*=99", "")
CROPS = ("0,0,12", "-1,0,9", "0,0,0", "0,0", "a,b,c", "999,0,9", "٣,٣,٣", "0,0,1000000000000", "")
TILES = ("dynamic", "32x32", "0x0", "64", "-1x5", "1000000000x1000000000", "x", "٣٢x٣٢", "33x47", "")
DEVICES = ("auto", "cpu", "cuda:9", "meta", "x", "", "cpu:3", "mps")
CHOICES = ("8bit", "float", "none", "x", "", "replicate", "mirror", "openvino", "onnxruntime", "int4", "int8")
VALUES: dict[str, tuple[str, ...]] = {
    "--method": METHODS,
    "--set": SETTINGS,
    "--layer": LAYERS,
    "--crop": CROPS,
    "--device": DEVICES,
    "--image": ("1.png", "1", "", "x", "é"),
    "--published": ("SwinIR-light", "x", ""),
    **dict.fromkeys(("--edges", "--border", "--engine", "--storage"), CHOICES),
    **dict.fromkeys(("--calibration", "--calibration-hr", "--data"), FILES),
    **dict.fromkeys(("-o", "--json"), TARGETS),
}
"""Of options that are no numbers."""
SHARED = ("--bits", "--edges", "--patches", "--patch-size", "--seed", "--value-range", "--device")
QUANTIZING = (*SHARED, "--weight-bits")
SOURCES = ("--calibration", "--calibration-hr")
NEEDED = ("--calibration", "low", "--patches", "2")
COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "quantize": (
        ("edsr.pth", *NEEDED, "--method", "minmax", "-o", "OUT/a.safetensors"),
        (*QUANTIZING, *SOURCES, "--method", "--layer", "--set", "-o"),
    ),
    "evaluate": (
        ("edsr.pth", "Set/x4"),
        ("--json", "--tile", "--border", "--value-range", "--device", "--engine", "--threads"),
    ),
    "upscale": (
        ("edsr_minmax.safetensors", "p.png", "-o", "OUT/a.png"),
        ("--tile", "--skip-existing", "--value-range", "--device", "--engine", "--threads", "-o"),
    ),
    "export": (
        ("edsr_int8.safetensors", "-o", "OUT/a.onnx", "--engine", "onnxruntime"),
        ("--tile", "--storage", "--threads", "-o"),
    ),
    "inspect": (("edsr_minmax.safetensors",), ("--value-range",)),
    "train": (
        ("edsr", "--data", "photos", "--steps", "1", "--scale", "2", "-o", "OUT/a.safetensors"),
        ("--scale", "--seed", "--device", "--data", "-o", "--set"),
    ),
    "bench run": (
        ("edsr.pth", *NEEDED, "--data", "Set/x4", "--method", "minmax", "-o", "OUT/runs"),
        (*SHARED, *SOURCES, "--data", "--suite", "--workers", "--threads", "--tile", "--overlap", "-o"),
    ),
    "bench show": (("low",), ("--format", "--suite", "--ssim", "--published")),
    "bench large-pictures": (("photos", "-o", "OUT/a"), ("-o",)),
    "bench published": (("SwinIR-light",), ("--scale", "--bits")),
    "analyze outliers": (
        ("edsr.pth", "--data", "Set/x4", "-o", "OUT/a.png"),
        ("--share", "--image", "--crop", "--zoom", "--value-range", "--device", "--data", "-o"),
    ),
    "analyze distributions": (
        ("edsr.pth", *NEEDED, "--layer", "head.*", "-o", "OUT/a.png"),
        ("--patches", "--layer", "--weights", "--seed", "--value-range", *SOURCES, "-o"),
    ),
    "analyze bounds": (
        ("edsr.pth", "edsr_minmax.safetensors", *NEEDED, "-o", "OUT/a.png"),
        ("--patches", "--seed", "--value-range", *SOURCES, "-o"),
    ),
    "analyze sensitivity": (
        ("edsr.pth", "--data", "Set/x4", *NEEDED, "--images", "1", "-o", "OUT/a.png"),
        ("--method", "--bits", "--images", "--sorted", "--patches", "--seed", "--data", "-o"),
    ),
    "analyze learning": (("edsr_minmax.safetensors", "-o", "OUT/a.png"), ("-o",)),
    "analyze compare": (
        ("edsr.pth", "edsr_minmax.safetensors", "--data", "Set/x4", "-o", "OUT/a.png"),
        ("--image", "--crop", "--size", "--zoom", "--device", "--data", "-o"),
    ),
}
"""Arguments that do, and options to be given besides."""
FLAGS = ("--skip-existing", "--sorted", "--weights")


def replaced(lab: Lab, words: list[str]) -> list[str]:
    """The words with the files among them where they are."""
    files = {name: str(lab.inputs / name) for name in FILES if name}
    return [str(lab.out) + word[3:] if word.startswith("OUT") else files.get(word, word) for word in words]


def arguments(random: Random, command: str) -> list[str]:
    given, options = COMMANDS[command]
    words = list(given)
    if command == "train":
        words += [word for field in TRAINING for word in ("--set", field)]
    files = [number for number, word in enumerate(words) if word in FILES]
    if files and random.random() < 0.25:  # another file, or none
        words[random.choice(files)] = random.choice(FILES)
    if random.random() < 0.1:
        del words[random.randrange(len(words))]
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        option = random.choice(options)
        if option in FLAGS:
            words.append(option)
            continue
        if (command, option) == ("quantize", "--method") and random.random() < 0.3:
            words += [option, random.choice(LEARNING), "--set", "finetuning.steps=1"]
            continue
        known = TILES if (command, option) == ("export", "--tile") else VALUES.get(option, NUMBERS)
        value = random.choice(known if random.random() < 0.9 else (*NUMBERS, *TEXTS))
        words += [option, value]
    return words


def run(lab: Lab, random: Random, commands: tuple[str, ...]) -> None:
    lab.clear()
    command = random.choice(commands)
    lab.law(*command.split(), *replaced(lab, arguments(random, command)))


@fuzzing(100)
@given(random=seeds())
def test_quantizing_and_using(lab: Lab, random: Random) -> None:
    run(lab, random, ("quantize", "quantize", "upscale", "evaluate", "export", "inspect", "train"))


@fuzzing(60)
@given(random=seeds())
def test_comparing_and_looking_inside(lab: Lab, random: Random) -> None:
    run(lab, random, tuple(command for command in COMMANDS if " " in command))
