"""Generated radar scenes have the statistics that their docstring promises, and the same bytes for the same seed."""

import json
import math

import numpy as np
import pytest
import rasterio
from scipy.stats import gamma, kstest

from data_engine.generators.backscatter import CLASSES, IGNORE, WATER, mean_backscatter
from data_engine.generators.gaussian_fields import filtered, margin, smooth_noise
from data_engine.generators.region_maps import Regions, make_regions
from data_engine.generators.sar_imaging import (
    SceneRecipe,
    look_weights,
    make_scene,
    observe,
    reflectivity_of,
    swath_edge,
)
from data_engine.generators.sar_scenes import write_scenes
from data_engine.generators.sar_sensors import SENSORS, Sensor, sensor_named
from mmzoo.errors import InputError


def rng(seed=0):
    return np.random.default_rng(seed)


def looks_of(power):
    return power.mean() ** 2 / power.var()


@pytest.mark.parametrize("looks", [1, 1.2, 2, 4.4, 4.99, 12])
def test_weights_have_the_looks_asked_for(looks):
    weights = look_weights(looks)
    assert sum(weights) ** 2 / sum(weight**2 for weight in weights) == pytest.approx(looks, rel=1e-12)
    assert len(weights) == math.ceil(looks)
    assert all(0 < weight <= 1 for weight in weights)


@pytest.mark.parametrize(("looks", "blur"), [(1, (0, 0)), (4, (1.2, 1.2)), (4.4, (1.3, 1.2)), (12, (0.7, 0.7))])
def test_flat_areas_have_the_mean_and_the_looks(looks, blur):
    power = observe(rng(), np.full((500, 500), 0.05), blur, looks, "intensity").astype(np.float64)
    independent = 500**2 / max(1, 2 * math.pi * blur[0] * blur[1])
    assert power.mean() == pytest.approx(0.05, rel=5 / math.sqrt(looks * independent))
    assert looks_of(power) == pytest.approx(looks, rel=6 * math.sqrt(2 * (looks + 1) / looks / independent))


@pytest.mark.parametrize("looks", [1, 4])
def test_speckle_is_gamma(looks):
    power = observe(rng(1), np.full((800, 800), 3.0), (1.2, 1.2), looks, "intensity")
    assert kstest(power[::9, ::9].ravel(), gamma(looks, scale=3 / looks).cdf).pvalue > 0.01
    assert kstest(power[::9, ::9].ravel(), gamma(looks + 1, scale=3 / (looks + 1)).cdf).pvalue < 1e-6


def test_neighbours_are_correlated_as_the_point_response_says():
    blur = (2.0, 1.2)
    power = observe(rng(2), np.ones((900, 900)), blur, 4, "intensity").astype(np.float64)
    centred = power - power.mean()
    for distance in (1, 2, 3):
        down = (centred[distance:] * centred[:-distance]).mean() / centred.var()
        across = (centred[:, distance:] * centred[:, :-distance]).mean() / centred.var()
        assert down == pytest.approx(math.exp(-(distance**2) / (2 * blur[0] ** 2)), abs=0.02)
        assert across == pytest.approx(math.exp(-(distance**2) / (2 * blur[1] ** 2)), abs=0.02)


def test_a_point_has_the_resolution_of_the_sensor():
    for sensor in SENSORS.values():
        point = np.zeros((65, 65))
        point[32, 32] = 1
        response = np.abs(filtered(point, sensor.blur)) ** 2
        assert response.sum() == pytest.approx(1)
        for line, width in zip((response[:, 32], response[32]), sensor.resolution, strict=True):
            fine = np.interp(np.arange(0, 64, 0.01), np.arange(65), line)
            assert (fine > line.max() / 2).mean() * 64 == pytest.approx(width / sensor.spacing, rel=0.12)


def test_every_class_has_its_mean_backscatter():
    """The mean power of a class is the response-weighted reflectivity plus noise, for fields as for bright walls."""
    sensor = sensor_named("gaofen3-fsi")
    for number in range(2):
        scene = make_scene(5, number, sensor, SceneRecipe(size=(400, 400)))
        rows, columns = margin(sensor.blur)
        padded = np.pad(scene.reflectivity, ((0, 0), (rows, rows), (columns, columns)), "reflect")
        impulse = np.zeros(padded.shape[1:])
        impulse[0, 0] = 1
        response = np.abs(filtered(impulse, sensor.blur)) ** 2
        spread = np.fft.ifft2(np.fft.fft2(padded) * np.fft.fft2(response)).real
        expected = spread[:, rows:-rows, columns:-columns] + 10 ** (sensor.noise / 10)
        for image, truth in zip(scene.image, expected, strict=True):
            for index, name in enumerate(CLASSES):
                inside = scene.mask == index
                if inside.sum() < 500:
                    continue
                spread_of_sum = 5 * math.sqrt((truth[inside] ** 2).sum() / 3 * 2 * math.pi * 1.45) / truth[inside].sum()
                assert image[inside].mean() / truth[inside].mean() == pytest.approx(1, abs=spread_of_sum), name


def test_classes_without_texture_have_the_tabled_mean():
    sensor = Sensor("plain", "C", ("VV", "VH"), 4, 10, (10, 10), 37.99, 38.01, 250, -60)
    scene = make_scene(1, 0, sensor, SceneRecipe(size=(300, 300), field_variation=0))
    for image, polarisation in zip(scene.reflectivity, sensor.polarisations, strict=True):
        table = mean_backscatter(polarisation, "C", 38.0)
        for index in (0, 1, 4):  # water, bare, road: no texture
            np.testing.assert_allclose(image[scene.mask == index], table[index], rtol=2e-3)
        crop = image[scene.mask == 2]
        assert crop.mean() == pytest.approx(table[2], rel=0.05)
        assert crop.var() / crop.mean() ** 2 == pytest.approx(0.02, rel=0.3)


def test_texture_and_fields_keep_the_mean_power():
    sensor = sensor_named("uavsar")
    shape = (400, 400)
    regions = Regions(
        np.full(shape, 3, np.uint8),
        np.arange(shape[0] * shape[1]).reshape(shape),
        np.zeros(shape, bool),
        np.zeros((0, 2), np.int64),
    )
    found = reflectivity_of(rng(), regions, sensor, np.full(400, 38.0), 1.5)[0]
    assert found.mean() == pytest.approx(mean_backscatter("HH", "L", 38.0)[3], rel=0.02)


def test_backscatter_falls_with_incidence():
    sensor = sensor_named("uavsar")
    shape = (20, 300)
    water = Regions(
        np.full(shape, WATER, np.uint8), np.zeros(shape, np.int64), np.zeros(shape, bool), np.zeros((0, 2), np.int64)
    )
    angles = np.linspace(25, 60, 300)
    decibels = 10 * np.log10(reflectivity_of(rng(), water, sensor, angles, 0)[0])
    np.testing.assert_allclose(np.diff(decibels[0]) / np.diff(angles), -0.5, rtol=1e-6)


def test_the_noise_floor_is_what_remains_of_nothing():
    sensor = Sensor("noisy", "C", ("VH",), 4, 10, (20, 20), 30, 46, 250, -18)
    scene = make_scene(0, 0, sensor, SceneRecipe(size=(300, 300)))
    water = scene.image[0][scene.mask == WATER]
    expected = scene.reflectivity[0][scene.mask == WATER].mean() + 10**-1.8
    assert np.median(water) == pytest.approx(expected, rel=0.12)
    assert np.median(water) > 5 * scene.reflectivity[0][scene.mask == WATER].mean()


def test_smooth_noise_is_standard_and_smooth():
    field = smooth_noise(rng(), (400, 400), 6.0)
    assert field.var() == pytest.approx(1, abs=0.15)
    step = (field[:, 6:] * field[:, :-6]).mean()
    assert step == pytest.approx(math.exp(-(6**2) / (4 * 6**2)), abs=0.1)


def test_domains_of_one_scene_agree():
    sensor = sensor_named("sentinel1-iw")
    made = {
        domain: make_scene(2, 7, sensor, SceneRecipe((64, 64), domain)) for domain in ("intensity", "amplitude", "db")
    }
    power = made["intensity"].image
    np.testing.assert_allclose(made["amplitude"].image ** 2, power, rtol=1e-5)
    np.testing.assert_allclose(10 ** (made["db"].image / 10), power, rtol=1e-5)
    picture = make_scene(2, 7, sensor, SceneRecipe((64, 64), "display8")).image
    assert picture.dtype == np.uint8
    assert picture.min() >= 1
    assert (picture == 255).mean() == pytest.approx(0.01, abs=0.005)


def test_complex_scenes_are_circular_gaussian():
    scene = make_scene(0, 0, sensor_named("terrasar-sm"), SceneRecipe((64, 64), "complex"))
    assert scene.image.dtype == np.complex64
    field = observe(rng(), np.ones((600, 600)), (1.0, 1.0), 9, "complex")
    assert abs(field.mean()) < 0.03
    assert abs((field**2).mean()) < 0.03
    assert field.real.var() == pytest.approx(0.5, rel=0.05)
    assert looks_of(np.abs(field) ** 2) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("name", SENSORS)
def test_maps_hold_every_class(name):
    found = np.zeros(len(CLASSES), int)
    for seed in range(6):
        regions = make_regions(rng(seed), (256, 256), SENSORS[name].spacing)
        found += np.bincount(regions.labels.ravel(), minlength=len(CLASSES))
        assert regions.labels[regions.walls].min() == regions.labels[regions.walls].max() == CLASSES.index("building")
    assert bool((found > 500).all())


def test_no_data_lies_beyond_a_slanting_edge():
    scene = make_scene(0, 0, sensor_named("sentinel1-iw"), SceneRecipe((64, 80), edge=0.5))
    outside = scene.mask == IGNORE
    assert 0 < outside.mean() < 0.5
    assert bool(np.isnan(scene.image[:, outside]).all() and np.isfinite(scene.image[:, ~outside]).all())
    assert bool((np.diff(outside.astype(int), axis=1) >= 0).all())
    assert not swath_edge(rng(), (8, 8), 0.0).any()


def bytes_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    recipe = SceneRecipe((48, 64))
    write_scenes(tmp_path / "a", 3, "sentinel1-iw", 4, recipe)
    write_scenes(tmp_path / "b", 3, "sentinel1-iw", 4, recipe)
    write_scenes(tmp_path / "fewer", 2, "sentinel1-iw", 4, recipe)
    write_scenes(tmp_path / "other", 3, "sentinel1-iw", 5, recipe)
    first = bytes_of(tmp_path / "a")
    assert first == bytes_of(tmp_path / "b")
    assert bytes_of(tmp_path / "fewer").items() <= first.items()
    images = [
        content for folder in ("a", "other") for name, content in bytes_of(tmp_path / folder).items() if "image" in name
    ]
    assert len(set(images)) == 6


def test_files_say_what_and_where_they_are(tmp_path):
    paths = write_scenes(tmp_path / "s", 2, "sentinel1-iw", 1, SceneRecipe((256, 300), "db", edge=0.2))
    assert [path.name for path in paths] == ["sentinel1-iw-1-00000.tif", "sentinel1-iw-1-00001.tif"]
    places = []
    for path in paths:
        with rasterio.open(path) as image, rasterio.open(tmp_path / "s/mask" / path.name) as mask:
            assert image.crs.to_epsg() == mask.crs.to_epsg() == 32633
            assert image.transform == mask.transform
            assert image.transform[:6:4] == (10, -10)
            assert image.descriptions == ("VV", "VH")
            assert image.dtypes == ("float32", "float32")
            assert math.isnan(image.nodata)
            assert [image.tags(band)["domain"] for band in (1, 2)] == ["db", "db"]
            assert image.tags()["looks"] == "4.4"
            assert mask.nodata == IGNORE
            assert mask.colormap(1)[WATER][:3] == (40, 90, 200)
            pixels, labels = image.read(), mask.read(1)
            assert bool((np.isnan(pixels).all(0) == (labels == IGNORE)).all())
            places.append(image.bounds)
    assert places[0].right < places[1].left
    table = json.loads((tmp_path / "s/classes.json").read_text())
    assert [entry["name"] for entry in table["classes"].values()] == list(CLASSES)


@pytest.mark.parametrize(("domain", "dtype", "nodata"), [("complex", "complex64", None), ("display8", "uint8", 0)])
def test_other_domains_as_files(tmp_path, domain, dtype, nodata):
    path = write_scenes(tmp_path / "s", 1, "terrasar-sm", recipe=SceneRecipe((32, 32), domain))[0]
    with rasterio.open(path) as image:
        assert (image.dtypes[0], image.nodata) == (dtype, nodata)
        assert image.tags(1).get("domain") == (None if domain == "complex" else domain)


def test_impossible_requests_are_refused(tmp_path):
    with pytest.raises(InputError, match="Did you mean 'sentinel1-iw'"):
        write_scenes(tmp_path / "a", 1, "sentinel1iw")
    with pytest.raises(InputError, match="1 or more"):
        write_scenes(tmp_path / "a", 0, "uavsar")
    (tmp_path / "b/image").mkdir(parents=True)
    with pytest.raises(InputError, match="is not empty"):
        write_scenes(tmp_path / "b", 1, "uavsar")
    for wrong in ({"size": (8, 64)}, {"edge": 1.0}, {"field_variation": -1}):
        with pytest.raises(InputError, match="scenes need"):
            SceneRecipe(**wrong)
    with pytest.raises(InputError, match="Did you mean 'amplitude'"):
        SceneRecipe(domain="amplitudes")
    with pytest.raises(InputError, match="Did you mean 'VV'"):
        mean_backscatter("VW", "C", 38.0)
    for wrong in ({"band": "K"}, {"near": 50.0}, {"looks": 0.5}, {"spacing": 0}):
        figures = {"band": "C", "near": 30.0, "looks": 4, "spacing": 10} | wrong
        with pytest.raises(InputError, match="sensor odd"):
            Sensor("odd", polarisations=("VV",), resolution=(20, 20), far=46, swath=250, noise=-22, **figures)
