def test_first(config, tmp_path, monkeypatch):
    from mmzoo.training.cli import main
    assert main(["-c", str(config), "--run", str(tmp_path / "run")], "mmzoo fit") == 0
    import subprocess
    print(subprocess.run(["find", str(tmp_path/"run")], capture_output=True, text=True).stdout)
    print((tmp_path/"run/metrics.csv").read_text()); print((tmp_path/"run/run.json").read_text()); print((tmp_path/"run/config.yaml").read_text())
