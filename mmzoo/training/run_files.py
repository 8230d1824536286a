"""Names of the files in a run folder."""

RECORD_FILE, CONFIG_FILE, DATA_STEPS_FILE = "run.json", "config.yaml", "data_steps.json"
