"""The reconstruction suite end to end: figures of known errors, whole or resumed, in batches of any size."""

import json
import math
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bits_tokenizer import Bits
from PIL import Image
from transformers import SiglipVisionModel

from eval_suites.evaluation import Evaluation
from eval_suites.leaderboard.gathering import read_entry
from eval_suites.metrics.code_rate import code_entropy
from eval_suites.metrics.frechet import frechet_reference
from eval_suites.metrics.reconstruction import to_tensor
from eval_suites.reconstruction import networks
from eval_suites.reconstruction.evaluate import evaluate
from eval_suites.reconstruction.measure import measure
from eval_suites.reconstruction.rate_plot import curve_svg
from eval_suites.reconstruction.suite import suite
from eval_suites.record import ModelStamp, read_record
from eval_suites.request import EvalRequest
from eval_suites.sample_log import SAMPLES_FILE
from mmzoo import cli
from mmzoo.errors import InputError
from mmzoo.hub.save import save_model
from tokenizers_visual.evotok.configuration import EvoTokConfig
from tokenizers_visual.evotok.family import TINY
from tokenizers_visual.evotok.modeling import EvoTokModel
from tokenizers_visual.evotok.teacher import Teacher as EvoTokTeacher
from tokenizers_visual.evotok.teacher import TeacherSettings

#: name -> bytes of its four quarters (8 x 8 px each): what the tokenizer leaves out is their low bits.
PICTURES = {"scene1_a": (0, 15, 128, 143), "scene1_b": (1, 1, 1, 1), "b": (240, 255, 17, 34), "c": (3, 5, 9, 129)}


class Features:
    """In Inception's place: 3 features an image, which tell outputs of different prefixes apart."""

    width = 3
    description = {"network": "means of three corners"}  # noqa: RUF012

    def features(self, images):
        corners = [images[:, :8, :8], images[:, 8:, 8:], images[:, :8, 8:]]
        return np.stack([corner.mean((1, 2, 3)) for corner in corners], 1).astype(np.float32)


@pytest.fixture(autouse=True)
def no_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


@pytest.fixture
def inception(monkeypatch):
    monkeypatch.setattr(networks.Inception, "load", lambda *_: Features())
    return Features()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for name, quarters in PICTURES.items():
        pixels = np.array(quarters, np.uint8).reshape(2, 2).repeat(8, 0).repeat(8, 1)
        Image.fromarray(np.stack([pixels] * 3, -1)).save(folder / f"{name}.png")
    return folder


def run(folder: Path, data: Path, model=None, limit=None, **options):
    stamp = ModelStamp("bits", "bits", None, None, {"weights": "none"}, "verified", 0, 0, ())
    evaluation = Evaluation(suite, stamp, folder)
    options = {"levels": [4, 8], "resize": ("none", None), "group": r"(scene\d)", **options}
    model = model or Bits()
    request = EvalRequest(model, data, "val", "cpu", limit, options, evaluation.open_log)
    try:
        return {metric.name: metric for metric in evaluate(request)}
    finally:
        if evaluation.log is not None:
            evaluation.log.close()


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_figures_of_known_errors(pictures, tmp_path):
    found = run(tmp_path, pictures)
    errors = {name: np.mean([(value & 15) ** 2 for value in quarters]) for name, quarters in PICTURES.items()}
    decibels = {name: 10 * math.log10(255**2 / error) for name, error in errors.items()}
    assert found["psnr@4"].value == pytest.approx(np.mean(list(decibels.values())))
    assert (found["psnr@4"].n_values, found["psnr@4"].n_groups) == (4, 3)
    assert found["psnr@4"].low < found["psnr@4"].value < found["psnr@4"].high
    assert (found["psnr@8"].value, found["psnr@8"].n_infinite) == (math.inf, 4)
    assert found["ssim@8"].value == found["ssim_range2@8"].value == 1
    assert 0 < found["ssim@4"].value < 1
    assert 0 < found["ssim_range2@4"].value < 1
    assert found["bpp@4"].value == 4 / 16  # 16 patches of 4 bits in 256 px
    rows = [json.loads(line) for line in (tmp_path / SAMPLES_FILE).read_text().splitlines()[1:]]
    assert {row["key"].rpartition("-")[0]: row["values"]["psnr@4"] for row in rows} == pytest.approx(decibels)
    assert {row["values"]["psnr@8"] for row in rows} == {"inf"}


def test_codebooks_and_entropy_are_those_of_all_codes_together(pictures, tmp_path):
    found = run(tmp_path, pictures)
    bits = np.array([[value >> shift & 1 for shift in range(7, -1, -1)] for q in PICTURES.values() for value in q])
    counts = np.stack([(bits == 0).sum(0), (bits == 1).sum(0)], 1) * 4  # four patches a quarter
    for level in range(8):
        entropy = code_entropy(counts)[level]
        assert found[f"codebook_usage@{level + 1}"].value == (counts[level] > 0).mean()
        assert found[f"codebook_perplexity@{level + 1}"].value == pytest.approx(2**entropy)
        assert found[f"codebook_perplexity@{level + 1}"].n_values == 64
    for level in (4, 8):
        assert found[f"entropy_bpp@{level}"].value == pytest.approx(code_entropy(counts)[:level].sum() / 16)
        assert found[f"entropy_bpp@{level}"].value < found[f"bpp@{level}"].value


def test_rfid_is_the_distance_between_the_two_sets(pictures, tmp_path, inception):
    found = run(tmp_path, pictures)
    truth = np.stack([np.asarray(Image.open(pictures / f"{name}.png")) for name in PICTURES])
    expected = frechet_reference(inception.features(truth), inception.features(truth & 240))
    assert found["rfid@4"].value == pytest.approx(expected, rel=1e-5)
    assert found["rfid@4"].value > 1
    assert found["rfid@8"].value == pytest.approx(0, abs=1e-4)
    assert found["rfid@4"].n_values == 4
    assert run(tmp_path / "one", pictures, limit=1)["rfid@4"].not_measured == "it needs two images"


def test_what_cannot_be_measured_says_why(pictures, tmp_path):
    found = run(tmp_path, pictures, resize=("square", 16))
    assert "weights absent: fetch" in found["rfid@4"].not_measured
    assert "weights absent: fetch" in found["lpips_vgg@8"].not_measured
    assert found["lpips_alex@4"].not_measured == "images of 16 px, and it needs 31 px"
    assert found["semantic_cosine@4"].not_measured == "the model has no semantic read-out"


@pytest.mark.parametrize("batch", [1, 3])
def test_the_batch_size_changes_nothing(pictures, tmp_path, inception, batch):
    options = {"codecs": ("jpeg", "webp")}
    whole = run(tmp_path / "whole", pictures, **options)
    assert run(tmp_path / "again", pictures, batch=batch, **options) == whole
    assert files_of(tmp_path / "again") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("torn", [b"", b'{"key": "half'])
def test_interrupted_anywhere_it_ends_the_same_and_measures_nothing_twice(pictures, tmp_path, inception, torn):
    whole = run(tmp_path / "whole", pictures)
    for stop in range(1, 4):
        folder, model = tmp_path / f"cut{stop}", Bits()
        model.stop_before = stop
        with pytest.raises(KeyboardInterrupt):
            run(folder, pictures, model, batch=1)
        for name in (SAMPLES_FILE, "codes.bin", "features_4.bin"):  # as a kill between two writes leaves them
            with (folder / name).open("ab") as file:
                file.write(torn)
        rest = Bits()
        assert run(folder, pictures, rest, batch=1) == whole
        assert rest.encoded == 4 - stop
        assert files_of(folder) == files_of(tmp_path / "whole")


def test_other_settings_and_lost_files_are_refused(pictures, tmp_path):
    run(tmp_path, pictures)
    for changed in ({"levels": [4]}, {"codecs": ("jpeg",)}, {"resize": ("crop", 4)}, {"group": None}):
        with pytest.raises(InputError, match="other settings"):
            run(tmp_path, pictures, **changed)
    (tmp_path / "codes.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"codes.bin holds 0 of 2048 bytes"):
        run(tmp_path, pictures)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda row: row["values"].pop("ssim@4"), "has no ssim@4"),
        (lambda row: row["values"].update({"ssim@5": 1.0}), "has ssim@5, which these settings do not measure"),
        (lambda row: row["more"].pop("codes"), "has no codes"),
        (lambda row: row["more"]["codes"].update(shape=[4, -4, 8]), "has no codes"),
        (lambda row: row["more"]["codes"].update(shape=[4, 4, 4]), "codes of 4 levels, 8 are needed"),
        (lambda row: row["more"].update(px=[16]), "has no size px"),
        (lambda row: row["more"]["features_crc32"].pop("4"), "has no features_crc32"),
    ],
)
def test_a_row_that_lacks_something_is_named_before_anything_is_measured(pictures, tmp_path, inception, damage, words):
    model = Bits()
    model.stop_before = 2
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, pictures, model, batch=1)
    header, first, *rest = (tmp_path / SAMPLES_FILE).read_text().splitlines()
    row = json.loads(first)
    damage(row)
    (tmp_path / SAMPLES_FILE).write_text("\n".join([header, json.dumps(row), *rest]) + "\n")
    again = Bits()
    with pytest.raises(InputError, match=words):
        run(tmp_path, pictures, again)
    assert again.encoded == 0


def test_a_diverged_model_is_refused(pictures, tmp_path):
    model = Bits()
    sound = model.decode_pixels
    model.decode_pixels = lambda codes: sound(codes) * (math.nan if codes.shape[-1] == 8 else 1)
    with pytest.raises(InputError, match="output from 8 levels is not finite"):
        run(tmp_path, pictures, model)
    with pytest.raises(InputError, match="output from 8 levels is not finite"):
        measure(model, [(["a"], torch.zeros(1, 3, 16, 16))], [4, 8], codebook_size=2)
    model.encode = lambda images: (Bits().eval().encode(images)[0], images * math.nan)
    with pytest.raises(InputError, match="latent is not finite"):
        run(tmp_path / "latent", pictures, model)


def test_images_of_all_sizes_are_measured_in_the_order_of_their_keys(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number, (height, width) in enumerate([(17, 33), (20, 20), (17, 33), (16, 16), (18, 33), (40, 13)]):
        pixels = random.integers(0, 256, (height, width, 1), dtype=np.uint8).repeat(3, 2)
        Image.fromarray(pixels).save(tmp_path / f"images/{number}.png")
    found = run(tmp_path / "out", tmp_path / "images", resize=("crop", 4), group=None, batch=4)
    rows = [json.loads(line) for line in (tmp_path / "out" / SAMPLES_FILE).read_text().splitlines()[1:]]
    assert [row["key"][0] for row in rows] == list("012345")
    assert [row["more"]["px"] for row in rows] == [[16, 32], [20, 20], [16, 32], [16, 16], [16, 32], [40, 12]]
    assert [row["more"]["source_px"] for row in rows][:2] == [[17, 33], [20, 20]]
    assert found["bpp@8"].value == 0.5


def test_codecs_stay_within_the_bits_of_the_codes_or_say_so(tmp_path):
    (tmp_path / "images").mkdir()
    rows, columns = np.mgrid[:64, :64]
    for number in range(3):
        waves = 128 + 60 * np.sin(rows / (5 + number)) + 50 * np.cos(columns / 7)
        Image.fromarray(np.stack([waves.astype(np.uint8)] * 3, -1)).save(tmp_path / f"images/{number}.png")
    run(tmp_path / "out", tmp_path / "images", codecs=("jpeg", "webp"), group=None)
    for line in (tmp_path / "out" / SAMPLES_FILE).read_text().splitlines()[1:]:
        values = json.loads(line)["values"]
        for codec in ("jpeg", "webp"):
            for level in (4, 8):
                for name in (codec, f"{codec}_bare"):
                    above = values[f"{name}_bpp@{level}"] > values[f"bpp@{level}"]
                    assert above == values[f"{name}_over_budget@{level}"]
                assert values[f"{codec}_bare_psnr@{level}"] > values[f"{codec}_psnr@{level}"] - 0.1
    curve = json.loads((tmp_path / "out/rate_distortion.json").read_text())
    methods = ["tokenizer", "jpeg", "jpeg_bare", "webp", "webp_bare"]
    assert [(row["method"], row["levels"]) for row in curve] == [(name, level) for name in methods for level in (4, 8)]
    assert curve[0]["bpp"] == 0.25
    assert curve[0]["entropy_bpp"] < 0.25
    table = (tmp_path / "out/rate_distortion.csv").read_text().splitlines()
    assert table[0].startswith("method,levels,bpp,entropy_bpp,over_budget,psnr,psnr_low,psnr_high,ssim")
    assert len(table) == 11
    drawn = ElementTree.fromstring((tmp_path / "out/rate_distortion.svg").read_text())
    words = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "Rate and distortion, own sizes, n 3" in words
    for name in ("tokenizer: codes, no", "JPEG: whole file", "JPEG: container left", "WebP: whole file"):
        assert any(word.startswith(name) for word in words), name
    points = sum(isinstance(row["psnr"], float) for row in curve)
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}circle"))) == points == len(curve)
    exact = [{**row, "psnr": "inf"} if row["method"] == "tokenizer" else row for row in curve]
    assert "no header (2 not drawn: exact)" in curve_svg(exact, "<i>own</i>")
    assert "&lt;i&gt;own" in curve_svg(exact, "<i>own</i>")


class Teacher:
    """Wants the features that a model gives from all its levels, turned around for half of the tokens."""

    def __init__(self, model):
        self.model = model
        self.receipt = {"source": "/a/path", "files": {"weights": "sha"}}

    def __call__(self, images, grid):
        codes, _ = self.model.encode(images)
        features = self.model.decode_semantics(codes).clone()
        features[:, : grid[0] * grid[1] // 2] *= -1
        return features


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    torch.manual_seed(0)
    return save_model(EvoTokModel(EvoTokConfig(**TINY)), tmp_path_factory.mktemp("models") / "tiny")


def test_a_real_tokenizer_with_its_teacher(tiny, pictures, tmp_path):
    model = EvoTokModel.from_pretrained(tiny).train()
    levels = [1, model.config.levels]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # prefixes are the subject, so nobody is warned of them
        options = {"levels": levels, "resize": ("square", 32), "teacher": Teacher(model)}
        found = run(tmp_path, pictures, model, **options)
        other = run(tmp_path / "singly", pictures, model, batch=1, **options)
    assert model.training
    assert found[f"semantic_cosine@{levels[1]}"].value == pytest.approx(0, abs=1e-5)
    stamp = json.loads((tmp_path / SAMPLES_FILE).read_text().splitlines()[0])["stamp"]
    stated = stamp["suite"]["settings"]["networks"]["semantic_teacher"]
    assert stated == {"class": "Teacher", "files": {"weights": "sha"}}
    for name, metric in found.items():
        if metric.value is not None:
            assert metric.value == pytest.approx(other[name].value, rel=1e-4, abs=1e-4), name


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """(model folder, folder of its teacher): the record of the model says which layer of which weights it was."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("taught")
    SiglipVisionModel(EvoTokConfig(**TINY).encoder_config()).save_pretrained(folder / "teacher")
    receipt = EvoTokTeacher.load(TeacherSettings(str(folder / "teacher"), "encoder.layers.1")).receipt
    record = {"receipts": [{"teacher": receipt}]}
    return save_model(EvoTokModel(EvoTokConfig(**TINY)), folder / "model", record=record), folder / "teacher"


def test_the_teacher_is_named_on_the_command_line(taught, tiny, pictures, tmp_path, capsys):
    model, teacher = taught

    def command(out, model, named):
        words = ["--model", model, "--data", pictures, "--out", tmp_path / out, "--resize", "32", "--teacher", named]
        code = cli.main(["eval", "run", "reconstruction", *map(str, words), "--device", "cpu"])
        return code, capsys.readouterr().err.splitlines()[-1]

    assert command("out", model, teacher)[0] == 0
    record = read_record(tmp_path / "out/record.json")
    found = record.metric("semantic_cosine@2")
    network = EvoTokTeacher.load(TeacherSettings(str(teacher), "encoder.layers.1"))
    own = EvoTokModel.from_pretrained(model, quiet=True).eval()
    values = []
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in PICTURES:
            pixels = np.asarray(Image.open(pictures / f"{name}.png").convert("RGB").resize((32, 32), Image.BICUBIC))
            image = to_tensor(pixels[None])
            codes, _ = own.encode(image)
            read_out = own.decode_semantics(codes[..., :2])
            values.append(F.cosine_similarity(read_out, network(image, (4, 4)), dim=-1).mean())
    assert found.value == pytest.approx(float(torch.stack(values).mean()), abs=1e-5)
    assert found.n_values == len(PICTURES)
    stated = record.suite.settings["networks"]["semantic_teacher"]
    assert (stated["layer"], list(stated["files"])) == ("encoder.layers.1", ["model.safetensors"])
    assert "source" not in stated
    code, said = command("none", tiny, teacher)
    assert (code, "records no teacher" in said, f"{teacher}@LAYER" in said) == (2, True, True)
    assert command("named", tiny, f"{teacher}@encoder.layers.1")[0] == 0
    torch.manual_seed(2)
    SiglipVisionModel(EvoTokConfig(**TINY).encoder_config()).save_pretrained(tmp_path / "other")
    code, said = command("other", model, tmp_path / "other")
    assert (code, "other weights than the teacher" in said) == (2, True)
    assert not (tmp_path / "other" / "record.json").exists()


def test_a_model_without_a_teacher_says_so(pictures, tmp_path):
    with pytest.raises(InputError, match="models of the kind Bits have no teacher here"):
        run(tmp_path, pictures, teacher="somewhere")


def test_from_the_command_line(tiny, pictures, tmp_path, capsys):
    words = ["--model", str(tiny), "--data", str(pictures), "--out", str(tmp_path / "out"), "--device", "cpu"]
    chosen = ["--resize", "32", "--codecs", "jpeg", "--levels", "1,2", "--group", r"(scene\d)"]
    assert cli.main(["eval", "run", "reconstruction", *words, *chosen]) == 0
    record = read_record(tmp_path / "out/record.json")
    assert record.suite.version == suite.version == "2"
    assert record.suite.settings["resize"]["size"] == 32
    assert {metric.name.partition("@")[0] for metric in record.metrics} <= set(suite.metrics)
    assert record.metric("psnr@2").n_groups == 3
    assert suite.kinds.keys() >= {metric.name.partition("@")[0] for metric in record.metrics}
    read_entry(tmp_path / "out/record.json")  # what a leaderboard asks of it holds
    wrong = {"--codecs": ("png", "unknown codec"), "--resize": ("big", "px such as 256"), "--batch": ("0", "from 1 up")}
    wrong["--vgg"] = ("absent.pth", "no weights at absent.pth")
    for option, text, message in (
        ("--resize", "99999999", "resize to 99999999 px: give at most 4096 px"),
        ("--resize", "9" * 5000, "digits"),
        ("--batch", "9" * 5000, "give at most 4096"),
    ):
        capsys.readouterr()
        assert cli.main(["eval", "run", "reconstruction", *words, option, text]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert len(said) < 500
    for option, (text, message) in wrong.items():
        capsys.readouterr()
        assert cli.main(["eval", "run", "reconstruction", *words, option, text]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"levels": [0, 1]}, "from 1 up"),
        ({"levels": [9]}, "levels 1 to 8"),
        ({"resize": ("square", 14)}, "14x14 px come back as 16x16 px"),
        ({"resize": ("square", 8)}, "at least 11 px"),
        ({"vgg": Path("nowhere.pth")}, "no weights at nowhere.pth"),
        ({"batch": -1}, "measures nothing"),
    ],
)
def test_a_users_mistake_is_named(pictures, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path, pictures, **options)
