import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from scipy.special import softmax

from scanbook import evaluation, plots
from scanbook.plots import style
from test_plots_segmentation import FIGURES as OF_SEGMENTATION

CLASSES = ("naevus", "melanoma", "basal cell carcinoma")
RANDOM = np.random.default_rng(0)


def pictures(count, side=48):
    """Discs of several colours on skin, and their masks."""
    y, x = np.mgrid[:side, :side]
    images, masks = [], []
    for place in range(count):
        mask = np.hypot(y - side / 2, x - side / 2 + place % 3) < side * (0.2 + 0.04 * (place % 5))
        image = np.full((side, side, 3), (226, 180, 160), np.uint8)
        image[mask] = (120 - 10 * (place % 4), 70, 50 + 8 * (place % 5))
        images.append(np.clip(image + RANDOM.normal(0, 6, image.shape), 0, 255).astype(np.uint8))
        masks.append(mask)
    return images, masks


def manifest(n=240):
    label = RANDOM.choice(CLASSES, n, p=[0.7, 0.2, 0.1])
    return pd.DataFrame(
        {
            "label": label,
            "part": RANDOM.choice(["train", "validation", "test"], n, p=[0.7, 0.15, 0.15]),
            "group": [f"p{i // 2}" for i in range(n)],
            "age_years": np.where(RANDOM.random(n) < 0.1, np.nan, RANDOM.normal(50, 14, n) + 8 * (label == "melanoma")),
            "sex": RANDOM.choice(["female", "male", None], n, p=[0.5, 0.42, 0.08]),
            "brightness": RANDOM.normal(140, 20, n),
            "sharpness": RANDOM.gamma(2, 40, n),
            "width_px": RANDOM.choice([450, 600, 1024], n),
        }
    )


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


FRAME = manifest()
IMAGES, MASKS = pictures(10)
HEAT = np.stack([np.exp(-((np.mgrid[:48, :48] - 20 - i) ** 2).sum(0) / 200) for i in range(7)])
SPEED = pd.DataFrame(
    {
        "threads": [1, 2, 4],
        "seconds": [40.0, 22.0, 13.0],
        "low": [38.0, 21.0, 11.5],
        "high": [42.5, 23.5, 15.0],
        "speedup": [1.0, 1.82, 3.08],
        "efficiency": [1.0, 0.91, 0.77],
    }
)
THROUGHPUT = pd.DataFrame(
    [
        (engine, batch, rate, rate * 0.9, rate * 1.1)
        for engine, top in (("openvino", 1870), ("onnxruntime", 1273), ("keras", 166), ("openvino_int8", 3200))
        for batch in (1, 4, 16, 64)
        for rate in [top * batch / (batch + 2)]
    ],
    columns=["engine", "batch", "images_per_second", "low", "high"],
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
    "class_counts_unsplit": lambda: plots.class_counts(FRAME.assign(part=""), CLASSES),
    "montage": lambda: plots.montage(IMAGES[:7], [f"image_{i}, melanoma, patient {i // 2}" for i in range(7)]),
    "flagged": lambda: plots.flagged(IMAGES[:3], ["a.jpg: blurred", "b.jpg: dark", "c.jpg: near-duplicate of a.jpg"]),
    "flagged_none": lambda: plots.flagged([], []),
    "image_statistics": lambda: plots.image_statistics(FRAME, ["brightness", "sharpness", "width_px"], CLASSES),
    "image_sizes": lambda: plots.image_sizes(SIZES, CLASSES),
    "image_sizes_of_many_classes": lambda: plots.image_sizes(
        SIZES.assign(label=[f"kind {i % 14}" for i in range(len(SIZES))]), [f"kind {i}" for i in range(14)]
    ),
    "image_sizes_one": lambda: plots.image_sizes(SIZES.assign(width_px=200, height_px=150), CLASSES),
    "shortcut_bars": lambda: plots.shortcut_bars(SHORTCUTS),
    "shortcut_bars_none": lambda: plots.shortcut_bars(SHORTCUTS.iloc[:0]),
    "numeric_by_class": lambda: plots.numeric_by_class(FRAME, "age_years", (*CLASSES, "dermatofibroma")),
    "category_by_class": lambda: plots.category_by_class(FRAME, "sex", CLASSES),
    "mask_overlays": lambda: plots.mask_overlays(
        IMAGES[:6],
        MASKS[:6],
        [*(np.roll(m, 3, 1) for m in MASKS[:5]), 0 * MASKS[5]],
        [f"Dice 0.9{i}" for i in range(6)],
    ),
    "metric_bars": lambda: plots.metric_bars(
        evaluation.summary(predicted(), rounds=100), "Test results, MobileNetV2 (400 images of 200 patients)"
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
    "learning_curves_seconds": lambda: plots.learning_curves({"frozen": history(1, 4, 0.1)}, x="seconds"),
    "policy_preview": lambda: plots.policy_preview(
        IMAGES[:2], [[np.rot90(image, turn) for turn in range(4)] for image in IMAGES[:2]], "Policy dermoscopy"
    ),
    "parameter_distributions": lambda: plots.parameter_distributions(DRAWS),
    "confusion_matrix": lambda: plots.confusion_matrix(evaluation.confusion(predicted())),
    "confusion_matrix_many": lambda: plots.confusion_matrix(
        evaluation.confusion(predicted(classes=tuple(f"kind {i}" for i in range(14)), skill=4, n=2000))
    ),
    "confusion_matrix_two": lambda: plots.confusion_matrix(evaluation.confusion(predicted(classes=("no", "yes")))),
    "roc_curves": lambda: plots.roc_curves(predicted(), rounds=100),
    "roc_curves_many": lambda: plots.roc_curves(predicted(classes=tuple(f"kind {i}" for i in range(9))), rounds=50),
    "roc_curves_two": lambda: plots.roc_curves(predicted(classes=("no", "yes")), rounds=100),
    "reliability_diagram": lambda: plots.reliability_diagram(predicted(scale=2.5), predicted(scale=1.0)),
    "heat_maps": lambda: plots.heat_maps(IMAGES[:4], HEAT[:4], [f"melanoma, said naevus {i}" for i in range(4)], 3),
    "difference_plot": lambda: plots.difference_plot(
        {
            "fine-tuned − frozen": evaluation.Difference("accuracy", 0.041, 0.018, 0.064, 0.002),
            "frozen − from scratch": evaluation.Difference("accuracy", 0.004, -0.012, 0.02, 0.6),
            "masked − whole": evaluation.Difference("accuracy", -0.05, -0.08, -0.01, 0.02),
        },
        "Accuracy of the arms against each other (400 test images)",
    ),
    "speed_bars": lambda: plots.speed_bars(SPEED, "Training one epoch, 512 images, 5 repeats"),
    "throughput_by_batch": lambda: plots.throughput_by_batch(THROUGHPUT, "MobileNetV2 at 160 px, 2 cores, 5 repeats"),
}
IMAGES_ONLY = {"montage", "flagged", "flagged_none", "mask_overlays", "policy_preview", "heat_maps"}


def test_every_function_is_drawn():
    functions = set(plots.__all__) - {"apply"}
    drawn = [*FIGURES, *OF_SEGMENTATION]
    assert all(any(name.startswith(function) for name in drawn) for function in functions)


@pytest.mark.parametrize("name", FIGURES)
def test_figure_renders_with_title_and_labels(name):
    figure = FIGURES[name]()
    assert isinstance(figure, Figure)
    assert not plt.get_fignums(), "an open figure is shown twice in a notebook"
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=50)
    file.seek(0)
    pixels = imread(file)[..., :3]
    assert pixels.std() > 0.02
    words = figure.get_suptitle() + "".join(axis.get_title(loc) for axis in figure.axes for loc in ("left", "center"))
    notes = {"flagged_none": "no image", "image_sizes_one": "200 × 150 pixels", "shortcut_bars_none": "too few images"}
    if name in notes:
        assert notes[name] in figure.axes[0].texts[0].get_text()
        return
    assert any(digit in words for digit in "123456789"), f"the title {words!r} does not say how many"
    if name not in IMAGES_ONLY:
        panels = [axis for axis in figure.axes if axis.get_visible() and axis.has_data()]
        assert panels
        places = {axis: axis.get_subplotspec() for axis in panels}
        first = [axis for axis, place in places.items() if place and place.is_first_col()]
        last = [axis for axis, place in places.items() if place and place.is_last_row()]
        assert first and all(axis.get_ylabel() for axis in first)
        assert last and all(axis.get_xlabel() for axis in last)


def test_style_leaves_settings_and_backend_alone():
    before = dict(mpl.rcParams)
    backend = mpl.get_backend()
    FIGURES["class_counts"]()
    with plots.apply():
        assert mpl.rcParams["figure.constrained_layout.use"]
    assert dict(mpl.rcParams) == before
    assert mpl.get_backend() == backend


def test_series_differ_without_colour():
    """Within the first seven series no two share dash and marker, nor a hatch."""
    looks = [style.line(i) for i in range(7)]
    assert len({(str(look["linestyle"]), look["marker"]) for look in looks}) == 7
    assert len({style.bar(i)["hatch"] for i in range(7)}) == 7
    assert len({tuple(map(str, style.line(i).values())) for i in range(280)}) == 280


def test_class_counts_show_every_number():
    figure = FIGURES["class_counts"]()
    shown = {text.get_text() for text in figure.axes[0].texts}
    assert {str(count) for count in FRAME.groupby(["label", "part"]).size()} <= shown
    assert "240 images in 120 groups" in figure.axes[0].get_title("left")


def test_confusion_text_holds_counts_and_shares():
    table = pd.DataFrame([[9, 1], [0, 10]], index=["a", "b"], columns=["a", "b"])
    texts = [text.get_text() for text in plots.confusion_matrix(table).axes[0].texts]
    assert texts == ["9\n90%", "1\n10%", "0\n0%", "10\n100%"]


def test_whiskers_are_the_interval():
    table = pd.DataFrame({"value": [0.5, 0.1], "low": [0.4, 0.2], "high": [0.7, 0.3]}, index=["accuracy", "ece"])
    axis = plots.metric_bars(table, "Two of 1 image").axes[0]
    segments = [segment[:, 0].tolist() for segment in axis.collections[0].get_segments()]
    np.testing.assert_allclose(segments, [[0.4, 0.7], [0.2, 0.3]])
    np.testing.assert_allclose(axis.lines[-1].get_xdata(), [0.5, 0.1])
    assert [label.get_text() for label in axis.get_yticklabels()] == ["accuracy", "calibration error (ECE)"]


def test_noise_is_hollow():
    axis = FIGURES["difference_plot"]().axes[0]
    fills = [mpl.colors.to_hex(one.get_markerfacecolor()) for one in axis.lines if one.get_marker() == "o"]
    assert fills == [style.COLOURS[0].lower(), "#ffffff", style.COLOURS[0].lower()]


def test_roc_legend_holds_the_area_and_its_interval():
    predictions = predicted()
    legend = FIGURES["roc_curves"]().axes[0].get_legend()
    row = evaluation.summary(predictions, ("auroc",), 100).loc["auroc"]
    words = f"mean: {row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
    assert words in [text.get_text() for text in legend.get_texts()]


def test_absent_class_has_no_curve():
    predictions = predicted()
    figure = plots.roc_curves(predictions.subset(predictions.y_true != 1), rounds=20)
    assert not any("melanoma" in text.get_text() for text in figure.axes[0].get_legend().get_texts())


def test_shortcut_bars_say_which_are_above_chance():
    axis = FIGURES["shortcut_bars"]().axes[0]
    labels = {text.get_text() for text in axis.get_legend().get_texts()}
    assert labels == {"above chance", "not above chance"}
    assert [len(container) for container in axis.containers[:2]] == [2, 2]
    assert {"0.58", "0.91", "chance"} <= {text.get_text() for text in axis.texts}
