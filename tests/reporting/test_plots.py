"""Figures of the images, of training, of results and of their reliability: they can be read, and show the numbers."""

import inspect
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from helpers import figures, settings
from scanbook import evaluation
from scanbook.augmentation import first_epoch
from scanbook.inspection import robustness
from scanbook.reporting import plots
from scanbook.reporting.plots import style, writing

CLASSES = ("naevus", "melanoma", "basal cell carcinoma")
RANDOM = np.random.default_rng(0)


def pictures(count, side=48):
    """Return discs of several colours on skin."""
    y, x = np.mgrid[:side, :side]
    images = []
    for place in range(count):
        mask = np.hypot(y - side / 2, x - side / 2 + place % 3) < side * (0.2 + 0.04 * (place % 5))
        image = np.full((side, side, 3), (226, 180, 160), np.uint8)
        image[mask] = (120 - 10 * (place % 4), 70, 50 + 8 * (place % 5))
        images.append(np.clip(image + RANDOM.normal(0, 6, image.shape), 0, 255).astype(np.uint8))
    return images


def manifest(n=240):
    label = RANDOM.choice(CLASSES, n, p=[0.7, 0.2, 0.1])
    return pd.DataFrame(
        {
            "label": label,
            "split": RANDOM.choice(["train", "validation", "test"], n, p=[0.7, 0.15, 0.15]),
            "group": [f"p{i // 2}" for i in range(n)],
            "age_years": np.where(RANDOM.random(n) < 0.1, np.nan, RANDOM.normal(50, 14, n) + 8 * (label == "melanoma")),
            "sex": RANDOM.choice(["female", "male", None], n, p=[0.5, 0.42, 0.08]),
            "brightness": RANDOM.normal(140, 20, n),
            "sharpness": RANDOM.gamma(2, 40, n),
            "width_px": RANDOM.choice([450, 600, 1024], n),
        }
    )


@cache
def predicted(skill=1.5, scale=2.0, n=400, classes=CLASSES, seed=1):
    random = np.random.default_rng(seed)
    y = random.choice(len(classes), n)
    logits = random.normal(size=(n, len(classes)))
    logits[np.arange(n), y] += skill
    ids = [f"i{i}" for i in range(n)]
    groups = [f"p{i // 2}" for i in range(n)]
    return evaluation.Predictions(ids, groups, y, softmax(logits * scale, axis=1), classes)


def history(epochs, pace, gap):
    epoch = np.arange(1, epochs + 1)
    loss = 1.1 * np.exp(-epoch / pace) + 0.1
    return pd.DataFrame(
        {
            "epoch": epoch,
            "loss": loss,
            "accuracy": 1 - 0.6 * loss,
            "validation_loss": loss + gap * epoch / epochs,
            "validation_accuracy": 1 - 0.6 * loss - gap / 3,
            "seconds": epoch * pace * 1.7,
        }
    )


def prevalence_figure(stated):
    validation, test, malignant = predicted(seed=2), predicted(seed=1), ("melanoma", "basal cell carcinoma")
    row = evaluation.targets_table(validation, test, {"malignant": malignant}, rounds=20).loc["malignant"]
    table = evaluation.prevalence_curve(test, malignant, row["threshold"], rounds=20)
    return plots.prevalence_curve(table, "Malignant or not (400 test images)", stated)


def coverage_figure(threshold):
    chosen = None if threshold is None else evaluation.abstention(predicted(), threshold, 20)
    table = evaluation.coverage_curve(predicted(), rounds=20)
    return plots.coverage_curve(table, "Accuracy when abstaining (400 test images)", chosen)


def subgroups_of(metrics):
    ages = pd.Series([22, 41, 58, 63, 77] * 79 + [np.nan] * 5, name="age_years")
    return evaluation.subgroups(predicted(), evaluation.attribute(ages.to_frame(), "age_years"), metrics, rounds=20)


FRAME = manifest()
IMAGES = pictures(3)
HEAT = np.stack([np.exp(-((np.mgrid[:48, :48] - 20 - i) ** 2).sum(0) / 200) for i in range(3)])
SIZES = np.array([20, 40, 80, 160, 320])
CURVE = evaluation.fit_curve(
    SIZES, np.r_[0.9 - SIZES[:-1] ** -0.5, 0.85] + RANDOM.normal(0, 0.01, (3, 5)) * (SIZES < 320)
)
DRAWS = pd.DataFrame(
    {
        "rotation_degrees": RANDOM.uniform(-180, 180, 500),
        "zoom": RANDOM.lognormal(0, 0.1, 500),
        "flipped": RANDOM.random(500) < 0.5,
        "brightness_shift": RANDOM.normal(0, 10, 500),
    }
)
SIZES = FRAME.assign(height_px=RANDOM.choice([300, 450, 768], len(FRAME)))
CORRUPTED = pd.DataFrame(
    [
        (kind, severity, 240, top - drop * severity, top - drop * severity - 0.04, top - drop * severity + 0.03)
        for kind, drop in (("noise", 0.1), ("jpeg", 0.02), ("contrast", 0.09))
        for top in [0.85]
        for severity in range(6)
    ],
    columns=["kind", "severity", "images", "accuracy", "low", "high"],
)
SHORTCUTS = pd.DataFrame(
    {
        "auc": [0.58, 0.5, 0.91, 0.52],
        "low": [0.55, 0.5, 0.88, 0.47],
        "high": [0.61, 0.5, 0.94, 0.58],
        "images": 2400,
        "above chance": [True, False, True, False],
    },
    index=["size, aspect and bytes", "format and mode", "file name", "mean colour"],
)
FIGURES = {
    "class_counts": lambda: plots.class_counts(FRAME, CLASSES),
    "class_counts_unsplit": lambda: plots.class_counts(FRAME.assign(split=""), CLASSES),
    "montage": lambda: plots.montage(IMAGES[:3], [f"image_{i}, melanoma, patient {i // 2}" for i in range(3)]),
    "montage_none": lambda: plots.montage([], [], title="Flagged"),
    "image_statistics": lambda: plots.image_statistics(FRAME, ["brightness", "sharpness", "width_px"], CLASSES),
    "image_sizes": lambda: plots.image_sizes(SIZES, CLASSES),
    "image_sizes_of_many_classes": lambda: plots.image_sizes(
        SIZES.assign(label=[f"kind {i % 13}" for i in range(len(SIZES))]), [f"kind {i}" for i in range(13)]
    ),
    "image_sizes_one": lambda: plots.image_sizes(SIZES.assign(width_px=200, height_px=150), CLASSES),
    "shortcut_bars": lambda: plots.shortcut_bars(SHORTCUTS),
    "shortcut_bars_none": lambda: plots.shortcut_bars(SHORTCUTS.iloc[:0]),
    "numeric_by_class": lambda: plots.numeric_by_class(FRAME, "age_years", (*CLASSES, "dermatofibroma")),
    "category_by_class": lambda: plots.category_by_class(FRAME, "sex", CLASSES),
    "metric_bars": lambda: plots.metric_bars(
        evaluation.summary(predicted(), rounds=20), "Test results, MobileNetV2 (400 images of 200 patients)"
    ),
    "metric_bars_references": lambda: plots.metric_bars(
        pd.DataFrame(
            {"value": [0.71, 0.83, np.nan], "low": [0.67, 0.8, np.nan], "high": [0.74, 0.86, np.nan]},
            index=pd.Index(["from scratch", "frozen", "no weights"], name="arm"),
        ),
        "Accuracy of the arms (400 test images)",
        "accuracy",
        {"majority class": 0.67, "Bayes": 0.93},
    ),
    "learning_curves": lambda: plots.learning_curves(
        {"from scratch": history(20, 9, 0.4), "frozen": history(12, 4, 0.1), "fine-tuned": history(20, 5, 0.2)}
    ),
    "learning_curves_of_many_arms": lambda: plots.learning_curves(
        {
            f"{backbone}, frozen, {policy}": history(12, 4, 0.1)
            for backbone in ("mobilenet_v2_0.35", "efficientnet_b0")
            for policy in ("none", "dermoscopy+mixup")
        }
    ),
    "learning_curves_seconds": lambda: plots.learning_curves({"frozen": history(1, 4, 0.1)}, x="seconds"),
    "policy_preview": lambda: plots.policy_preview(
        IMAGES[:2], [[np.rot90(image, turn) for turn in range(2)] for image in IMAGES[:2]], "Policy dermoscopy"
    ),
    "mixed_batch": lambda: plots.mixed_batch(
        np.stack(IMAGES[:3]), RANDOM.dirichlet([0.1, 0.1, 0.1], 3), CLASSES, "Policy dermoscopy+mixup"
    ),
    "corruption_preview": lambda: plots.corruption_preview(
        {kind: images[:3] for kind, images in list(robustness.examples(IMAGES[0]).items())[:2]}
    ),
    "robustness_curves": lambda: plots.robustness_curves(CORRUPTED),
    "patient_curves": lambda: plots.patient_curves({"frozen": {"accuracy": CURVE, "auroc": CURVE}}),
    "patient_curves_of_two_networks": lambda: plots.patient_curves(
        {"frozen": {"auroc": CURVE}, "fine-tuned": {"auroc": CURVE}}, "images"
    ),
    "parameter_distributions": lambda: plots.parameter_distributions(DRAWS),
    "parameter_distributions_of_operations": lambda: plots.parameter_distributions(
        first_epoch("dermoscopy+trivialaugment+random_crop", (24, 32), 400, 16, 0)
    ),
    "confusion_matrix": lambda: plots.confusion_matrix(evaluation.confusion(predicted())),
    "confusion_matrix_many": lambda: plots.confusion_matrix(
        evaluation.confusion(predicted(classes=tuple(f"kind {i}" for i in range(13)), skill=4, n=400))
    ),
    "confusion_matrix_two": lambda: plots.confusion_matrix(evaluation.confusion(predicted(classes=("no", "yes")))),
    "roc_curves": lambda: plots.roc_curves(predicted(), rounds=20),
    "roc_curves_two": lambda: plots.roc_curves(predicted(classes=("no", "yes")), rounds=20),
    "reliability_diagram": lambda: plots.reliability_diagram(predicted(scale=2.5), predicted(scale=1.0)),
    "heat_maps": lambda: plots.heat_maps(
        IMAGES[:3], HEAT[:3], [f"true melanoma, predicted naevus {i}" for i in range(3)], 2
    ),
    "difference_plot": lambda: plots.difference_plot(
        {
            "fine-tuned − frozen": evaluation.Difference("accuracy", 0.041, 0.018, 0.064, 0.002),
            "frozen − from scratch": evaluation.Difference("accuracy", 0.004, -0.012, 0.02, 0.6),
            "masked − whole": evaluation.Difference("accuracy", -0.05, -0.08, -0.01, 0.02),
        },
        "Accuracy of the arms against each other (400 test images)",
    ),
    "prevalence_curve": lambda: prevalence_figure(stated=0.0176),
    "prevalence_curve_unmarked": lambda: prevalence_figure(stated=None),
    "coverage_curve": lambda: coverage_figure(0.7),
    "coverage_curve_unmarked": lambda: coverage_figure(None),
    "coverage_curve_impossible": lambda: coverage_figure(1.1),
    "subgroup_bars": lambda: plots.subgroup_bars(
        subgroups_of(("accuracy", "auroc")),
        "By age (400 test images)",
        evaluation.summary(predicted(), ("accuracy", "auroc"), 20),
    ),
    "subgroup_bars_one": lambda: plots.subgroup_bars(subgroups_of(("accuracy",)), "By age (400 test images)"),
    "seed_dots": lambda: plots.seed_dots(
        evaluation.over_seeds({seed: predicted(seed=seed) for seed in (1, 2, 3)}), "Fine-tuned (3 seeds, 400 images)"
    ),
    "standings": lambda: plots.standings({"small_cnn": [0.7, 0.72], "baseline_cnn, none": [0.7, 0.7]}, "accuracy"),
    "seed_dots_one": lambda: plots.seed_dots(evaluation.over_seeds({5: predicted()}), "Fine-tuned (1 seed)"),
}
NOTES = {
    "montage_none": "Flagged: no image",
    "image_sizes_one": "240 images: 200 × 150 pixels",
    "shortcut_bars_none": "too few images",
}
IMAGES_ONLY = {"montage", "policy_preview", "heat_maps", "mixed_batch", "corruption_preview"}


@cache
def drawn(name):
    return FIGURES[name]()


def test_metadata_has_a_figure_for_each_column_that_can_be_drawn():
    frame = FRAME.assign(note=[f"text {number}" for number in range(len(FRAME))])
    named = dict(plots.metadata_by_class(frame, ["age_years", "sex", "note"], CLASSES))
    assert list(named) == ["age_years", "sex"]


def test_every_function_is_drawn():
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    functions = [name for name, value in vars(plots).items() if inspect.isfunction(value)]
    assert len(functions) > 25 and [name for name in functions if f"{name}(" not in tests] == []


@pytest.mark.parametrize("name", FIGURES)
def test_figure_can_be_read(name):
    if name in NOTES:
        assert NOTES[name] in figures.texts(drawn(name))[0]
    elif name == "standings":  # in a page of its own, which has the title
        assert figures.legend(drawn(name)) == ["one seed", "mean of the seeds"]
    else:
        figures.check(drawn(name), labels=name not in IMAGES_ONLY)


def test_style_leaves_settings_and_backend_alone():
    before = dict(mpl.rcParams)
    backend = mpl.get_backend()
    assert FIGURES["class_counts"]().get_layout_engine() is not None
    assert dict(mpl.rcParams) == before
    assert mpl.get_backend() == backend


OF_EACH_KIND = (
    *("class_counts", "numeric_by_class", "confusion_matrix", "montage_none", "heat_maps", "learning_curves"),
    *("image_statistics", "reliability_diagram", "difference_plot", "standings"),
)


@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_a_users_settings_of_matplotlib_change_no_figure(name, tmp_path, monkeypatch):
    """Settings that are read when a figure is made, and those that are read only when it is written; a backend, too."""
    before = writing.write(FIGURES[name]())
    (tmp_path / "matplotlibrc").write_text(settings.MATPLOTLIBRC)
    monkeypatch.setitem(mpl.rcParams, "backend", "module://backend_interagg")
    with mpl.rc_context(fname=tmp_path / "matplotlibrc"):
        written = writing.write(FIGURES[name]())
        assert mpl.rcParams["text.usetex"] is True
    assert (written.suffix, written.file) == (before.suffix, before.file)


def test_series_differ_without_colour():
    """Within the first seven series no two share dash and marker, nor a hatch."""
    looks = [style.line(i) for i in range(7)]
    assert len({(str(look["linestyle"]), look["marker"]) for look in looks}) == 7
    assert len({style.bar(i)["hatch"] for i in range(7)}) == 7
    assert len({tuple(map(str, style.line(i).values())) for i in range(280)}) == 280


def test_class_counts_show_every_number():
    figure = drawn("class_counts")
    assert {str(count) for count in FRAME.groupby(["label", "split"]).size()} <= set(figures.texts(figure))
    assert "240 images in 120 groups" in figure.axes[0].get_title("left")


def test_confusion_text_holds_counts_and_shares():
    table = pd.DataFrame([[9, 1], [0, 10]], index=["a", "b"], columns=["a", "b"])
    assert figures.texts(plots.confusion_matrix(table)) == ["9\n90%", "1\n10%", "0\n0%", "10\n100%"]


def test_whiskers_are_the_interval():
    table = pd.DataFrame({"value": [0.5, 0.1], "low": [0.4, 0.2], "high": [0.7, 0.3]}, index=["accuracy", "ece"])
    axis = plots.metric_bars(table, "Two of 1 image").axes[0]
    segments = [segment[:, 0].tolist() for segment in axis.collections[0].get_segments()]
    np.testing.assert_allclose(segments, [[0.4, 0.7], [0.2, 0.3]])
    np.testing.assert_allclose(axis.lines[-1].get_xdata(), [0.5, 0.1])
    assert [label.get_text() for label in axis.get_yticklabels()] == ["accuracy", "calibration error (ECE)"]


def test_noise_is_hollow():
    axis = drawn("difference_plot").axes[0]
    fills = [mpl.colors.to_hex(line.get_markerfacecolor()) for line in axis.lines if line.get_marker() == "o"]
    assert fills == [style.COLOURS[0].lower(), "#ffffff", style.COLOURS[0].lower()]


def test_roc_legend_holds_the_area_and_its_interval():
    predictions = predicted()
    row = evaluation.summary(predictions, ("auroc",), 20).loc["auroc"]
    label = f"mean of 3 classes: {row['value']:.3f} ({row['low']:.3f}–{row['high']:.3f})"
    assert label in figures.legend(drawn("roc_curves").axes[0])


def test_absent_class_has_no_curve():
    predictions = predicted()
    figure = plots.roc_curves(predictions.subset(predictions.y_true != 1), rounds=20)
    assert not any("melanoma" in label for label in figures.legend(figure.axes[0]))


def test_no_figure_gives_a_mean_over_classes_where_one_has_no_image():
    predictions = predicted()
    part = predictions.subset(predictions.y_true != 1)
    assert not any("mean of" in label for label in figures.legend(plots.roc_curves(part, rounds=20).axes[0]))
    summary = evaluation.summary(part, ("accuracy", "auroc"), 20)
    gap = evaluation.paired_difference(part, part, "accuracy", 20)
    ece = evaluation.paired_difference(part, part, "brier", 20)
    shown = [
        plots.metric_bars(summary, "net"),
        plots.difference_plot({"accuracy": gap}, "net"),
        plots.difference_plot({"accuracy": gap, "brier": ece}, "net"),
        plots.standings({"net": [float("nan")]}, "macro AUROC"),
    ]
    for figure in shown:
        texts = " ".join(text.get_text() for text in figure.findobj(mpl.text.Text))
        assert "not defined" in texts and "nan" not in texts.replace("naevus", "")


def test_shortcut_bars_say_which_are_above_chance():
    axis = drawn("shortcut_bars").axes[0]
    assert set(figures.legend(axis)) == {"above chance", "not above chance"}
    assert [len(container) for container in axis.containers[:2]] == [2, 2]
    assert {"0.58", "0.91", "chance"} <= {text.get_text() for text in axis.texts}


def test_strengths_of_operations_are_those_of_images_that_have_them():
    frame = pd.DataFrame({"operation": list("abcdef"), "operation a, degrees": [5.0, 7.0, *[np.nan] * 4]})
    names, strengths = plots.parameter_distributions(frame).axes
    assert [bar.get_width() for bar in names.patches] == pytest.approx([100 / 6] * 6)
    assert [label.get_text() for label in names.get_yticklabels()] == list("fedcba")
    assert sum(bar.get_height() for bar in strengths.patches) == pytest.approx(100)
    assert strengths.get_ylabel() == "of 2 samples, %"


def test_mixed_images_say_what_remains_of_each_class():
    shares = np.array([[1.0, 0, 0], [0.3, 0.7, 0], [0.001, 0.999, 0]])
    axes = plots.mixed_batch(np.stack(IMAGES[:3]), shares, ("naevus", "mela_noma", "other")).axes
    titles = [axis.get_title("center").replace("\n", " ") for axis in axes[:3]]
    assert titles == ["1.00 naevus", "0.70 mela noma + 0.30 naevus", "1.00 mela noma"]


def test_robustness_panels_share_their_axis_and_show_the_interval():
    axes = drawn("robustness_curves").axes
    assert [axis.get_title("left") for axis in axes] == ["Noise", "JPEG", "Contrast"]
    assert len({axis.get_ylim() for axis in axes}) == 1
    band = axes[0].collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([band.min(), band.max()], [0.31, 0.88])
    [curve] = [line for line in axes[2].lines if line.get_marker() == "o"]
    np.testing.assert_allclose(curve.get_ydata(), 0.85 - 0.09 * np.arange(6))


def test_stated_prevalence_is_marked_with_its_values():
    labels = figures.legend(drawn("prevalence_curve"))
    validation, test = predicted(seed=2), predicted(seed=1)
    malignant = {"malignant": ("melanoma", "basal cell carcinoma")}
    row = evaluation.targets_table(validation, test, malignant, prevalence={"malignant": 0.0176}, rounds=20).loc[
        "malignant"
    ]
    assert f"at 1.76%: {row['ppv']:.1%} (" in labels[0] and f"at 1.76%: {row['npv']:.1%} (" in labels[1]
    assert labels[2] == "stated prevalence: 1.76%"
    assert len(figures.legend(drawn("prevalence_curve_unmarked"))) == 2


def test_subgroup_bars_name_counts_and_leave_few_out():
    first, second = drawn("subgroup_bars").axes
    labels = [label.get_text() for label in first.get_yticklabels()]
    assert labels[:2] == ["under 30 (n = 79)", "30–49 (n = 79)"] and labels[-1] == "not recorded (n = 5)"
    assert [text.get_text() for text in second.texts] == ["too few images"]
    assert first.get_xlabel().startswith("accuracy") and second.get_xlabel().startswith("macro AUROC")


def test_seed_dots_hold_mean_and_deviation():
    table = evaluation.over_seeds({seed: predicted(seed=seed) for seed in (1, 2, 3)}, ("accuracy",))
    axis = plots.seed_dots(table, "Of 3 seeds").axes[0]
    row = table.loc["accuracy"]
    assert [text.get_text() for text in axis.texts] == [f"{row['mean']:.3f} ± {row['sd']:.3f}"]
    dots = [line.get_xdata()[0] for line in axis.lines if line.get_label().startswith("seed")]
    np.testing.assert_allclose(dots, row[["seed 1", "seed 2", "seed 3"]].astype(float) - row["mean"])


def test_prevalence_beyond_the_curve_is_not_read_off_it():
    labels = figures.legend(prevalence_figure(stated=0.8))
    assert labels[0].endswith("at 80%: not known") and labels[1].endswith("at 80%: not known")
