import pytest
import yaml

from mmzoo.errors import InputError
from mmzoo.training import config_files
from mmzoo.training.config_files import compose, find_config, locate, to_yaml, where


def write(path, text):
    path.write_text(text)
    return str(path)


def test_later_files_win_at_any_depth_and_lists_are_replaced(tmp_path):
    a = write(tmp_path / "a.yaml", "trainer: {max_steps: 1, devices: 1, callbacks: [x, y]}\nrun: here\n")
    b = write(tmp_path / "b.yaml", "trainer:\n  max_steps: 2\n  callbacks: [z]\n")
    merged = yaml.safe_load(to_yaml(compose([a, b])))
    assert merged == {"trainer": {"max_steps": 2, "devices": 1, "callbacks": ["z"]}, "run": "here"}
    assert yaml.safe_load(to_yaml(compose([b, a])))["trainer"] == {
        "max_steps": 1,
        "devices": 1,
        "callbacks": ["x", "y"],
    }


def test_arguments_of_another_class_do_not_survive(tmp_path):
    a = write(tmp_path / "a.yaml", "model: {class_path: m.A, init_args: {only_a: 1}}")
    b = write(tmp_path / "b.yaml", "model: {class_path: m.B, init_args: {only_b: 1}}")
    same = write(tmp_path / "c.yaml", "model: {class_path: m.A, init_args: {more: 1}}")
    assert yaml.safe_load(to_yaml(compose([a, b])))["model"]["init_args"] == {"only_b": 1}
    assert yaml.safe_load(to_yaml(compose([a, same])))["model"]["init_args"] == {"only_a": 1, "more": 1}


def test_scalars_stay_as_written_and_anchors_work(tmp_path):
    a = write(tmp_path / "a.yaml", "x: &shared {lr: 1e-3, name: 'on'}\ny: {<<: *shared, lr: 2}\nz: *shared\n")
    text = to_yaml(compose([a]))
    assert "1e-3" in text
    assert "'on'" in text
    assert yaml.safe_load(text)["y"] == {"lr": 2, "name": "on"}
    assert yaml.safe_load(text)["z"] == {"lr": "1e-3", "name": "on"}


def test_merged_keys_remember_their_file_and_line(tmp_path):
    a = write(tmp_path / "a.yaml", "model:\n  init_args:\n    width: 1\n")
    b = write(tmp_path / "b.yaml", "# one\n\nmodel:\n  init_args:\n    depth: 1\n")
    config = compose([a, b])
    assert [where(locate(config, ["model", "init_args", name])[0]) for name in ("width", "depth")] == [
        f"{a}:3",
        f"{b}:5",
    ]
    assert locate(config, ["model", "depth"])[1] == "model.init_args.depth"
    assert locate(config, ["model", "nothing"]) is None


def test_empty_file_is_an_empty_config(tmp_path):
    assert to_yaml(compose([write(tmp_path / "a.yaml", "# nothing\n")])) == "{}\n"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: [1\nc: 2\n", 3, "not valid YAML"),
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", 5, "'c' stands twice"),
        ("a:\n - {x: 1,\n    x: 2}\n", 3, "'x' stands twice"),
        ("- a\n- b\n", 1, "is a sequence"),
        ("{[1]: 2}\n", 1, "plain name"),
        ("a: *nowhere\n", 1, "undefined alias"),
        ("a: 1\n\tb: 2\n", 2, "not valid YAML"),
    ],
)
def test_broken_files_are_reported_with_their_line(tmp_path, text, line, words):
    path = write(tmp_path / "a.yaml", text)
    with pytest.raises(InputError, match=words) as error:
        compose([path])
    assert str(error.value).startswith(f"{path}:{line}:")


def test_configs_are_found_as_path_and_as_shipped_name(tmp_path, monkeypatch):
    shipped = tmp_path / "shipped"
    (shipped / "evotok").mkdir(parents=True)
    write(shipped / "evotok" / "tiny-demo.yaml", "a: shipped")
    monkeypatch.setattr(config_files, "shipped_folder", lambda: shipped)
    monkeypatch.chdir(tmp_path)
    for name in ("evotok/tiny-demo", "evotok/tiny-demo.yaml"):
        assert find_config(name) == shipped / "evotok" / "tiny-demo.yaml"
    with pytest.raises(InputError, match="Did you mean 'evotok/tiny-demo'"):
        find_config("evotok/tinydemo")
    (tmp_path / "evotok").mkdir()
    write(tmp_path / "evotok" / "tiny-demo.yaml", "a: mine")
    assert str(find_config("evotok/tiny-demo")) == "evotok/tiny-demo.yaml"
    with pytest.raises(InputError, match="is a folder"):
        find_config("shipped")


def test_unreadable_text_is_a_user_mistake(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        compose([str(tmp_path / "a.yaml")])
