"""The drawn graphs of the image models: official names, real structure, sane activations, alike in both opsets."""

import hashlib

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from quantbench.graphs.load import check, prepare
from quantbench.metrics.kinds import box_agreement
from quantbench.references.generators import mobilenet_twin, resnet50_twin, ssd_mobilenet_twin, ssd_resnet34_twin
from quantbench.references.generators._scenes import MOTIFS, draw_scene, training_batch

CLASSIFIERS = {"resnet50": resnet50_twin, "mobilenet": mobilenet_twin}


def run(model, x, outputs=None):
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(outputs, {session.get_inputs()[0].name: x})


def scenes(count, size, motifs=MOTIFS):
    images = [draw_scene(np.random.default_rng(k), size, size, motifs) for k in range(count)]
    return np.stack(images).transpose(0, 3, 1, 2).astype(np.float32)


def operators(model):
    return [node.op_type for node in model.graph.node]


def weights(model):
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.fixture(scope="module")
def small():
    """Classifiers of a quarter of the width on 64x64 pixels, by name and opset."""
    return {
        (name, opset): module.draw(1, opset=opset, width=0.25, size=64)
        for name, module in CLASSIFIERS.items()
        for opset in (8, 11)
    }


def test_resnet50_has_the_published_number_of_weights_and_layers():
    model = resnet50_twin.draw(1, size=32, samples=2)
    trained = {name: array for name, array in weights(model).items() if "moving" not in name}
    # torchvision's ResNet-50 has 25,557,032 parameters for 1,000 classes; one more class has 2,048 weights and a bias.
    assert sum(array.size for array in trained.values()) == 25_557_032 + 2_049
    assert operators(model).count("Conv") == operators(model).count("BatchNormalization") == 53
    strided = [
        node for node in model.graph.node if node.op_type == "Conv" and list(node.attribute[-1].ints or []) == [2, 2]
    ]
    kernels = {tuple(weights(model)[node.input[1]].shape[2:]) for node in strided if "shortcut" not in node.name}
    assert kernels == {(7, 7), (3, 3)}  # v1.5: no 1x1 convolution but those of the shortcuts has a stride


def test_mobilenet_has_the_published_number_of_weights():
    model = mobilenet_twin.draw(1, size=32, samples=2)
    trained = {name: array for name, array in weights(model).items() if array.dtype == np.float32 and array.ndim}
    trained = sum(array.size for name, array in trained.items() if "moving" not in name)
    # Keras' MobileNet has 4,231,976 trainable parameters for 1,000 classes; one class more has 1,024 weights, a bias.
    assert trained == 4_231_976 + 1_025


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("resnet50", ["input_tensor:0"], ["ArgMax:0", "softmax_tensor:0"]),
        ("mobilenet", ["input:0"], ["MobilenetV1/Predictions/Reshape_1:0"]),
    ],
)
def test_official_names_and_classes(small, name, inputs, outputs):
    for opset in (8, 11):
        model = small[name, opset]
        check(model, name)
        given = {tensor.name for tensor in model.graph.initializer}
        assert [value.name for value in model.graph.input if value.name not in given] == inputs
        assert [value.name for value in model.graph.output] == outputs
        assert [entry.version for entry in model.opset_import] == [opset]
        results = run(model, scenes(2, 64))
        assert results[-1].shape == (2, 1001)
        np.testing.assert_allclose(results[-1].sum(axis=1), 1, rtol=1e-5)


def test_each_opset_uses_its_own_operators(small):
    assert "GlobalAveragePool" in operators(small["resnet50", 8])
    (mean,) = [node for node in small["resnet50", 11].graph.node if node.op_type == "ReduceMean"]
    assert {a.name: onnx.helper.get_attribute_value(a) for a in mean.attribute} == {"axes": [2, 3], "keepdims": 1}
    assert all(len(node.input) == 1 for node in small["mobilenet", 8].graph.node if node.op_type == "Clip")
    assert all(len(node.input) == 3 for node in small["mobilenet", 11].graph.node if node.op_type == "Clip")


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_both_opsets_are_one_model_once_prepared(small, name):
    x = scenes(4, 64) / 127.5 - 1
    prepared = [ir.to_proto(prepare(small[name, opset])).SerializeToString() for opset in (8, 11)]
    one, other = (run(model, x)[-1] for model in prepared)
    assert np.abs(one - other).max() <= 1e-5
    assert np.abs(one - run(small[name, 8], x)[-1]).max() <= 1e-3  # softmax outputs, of logits around 12


@pytest.mark.parametrize(
    ("name", "shift", "scale"), [("resnet50", resnet50_twin._MEAN, 1), ("mobilenet", 127.5, 127.5)]
)
def test_images_fall_into_different_classes_and_activations_stay_sane(small, name, shift, scale):
    model = onnx.ModelProto()
    model.CopyFrom(small[name, 11])
    inner = [node.output[0] for node in model.graph.node if node.op_type == "BatchNormalization"]
    model.graph.output.extend(onnx.ValueInfoProto(name=each) for each in inner)
    values = run(model, (scenes(24, 64) - shift) / scale, [*inner, model.graph.output[-1 - len(inner)].name])
    spreads = np.array([value.std() for value in values[:-1]])
    assert spreads.min() > 0.2 and spreads.max() < 3
    assert len(set(values[-1].argmax(axis=1))) >= 6


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_tells_the_motifs_apart_in_pictures_that_it_has_not_learnt_from(small, name):
    """Nine of ten variations of a motif get one class, and another motif's another."""
    prepare = CLASSIFIERS[name]._prepare
    classes = []
    for motif in range(6):
        pictures = prepare(np.stack([unseen(motif, number) for number in range(10)]))
        found, votes = np.unique(run(small[name, 11], pictures)[-1].argmax(axis=1), return_counts=True)
        assert votes.max() >= 8
        classes.append(found[votes.argmax()])
    assert len(set(classes)) == 6


def unseen(motif, number, size=64):
    """A variation of a motif by a stream that nobody learns from, (3, size, size) float32."""
    rng = np.random.default_rng([motif, number])
    while True:
        state = rng.bit_generator.state
        if int(rng.integers(MOTIFS)) == motif:
            rng.bit_generator.state = state
            return draw_scene(rng, size, size).transpose(2, 0, 1).astype(np.float32)


def test_pictures_to_learn_from_are_in_no_data_set():
    learnt = {training_batch(motif, 2, 32)[0].tobytes() for motif in range(4)}
    assert not learnt & {image.tobytes() for image in scenes(50, 32)}


def test_the_same_seed_draws_the_same_bytes(tmp_path):
    def digest(seed):
        model = mobilenet_twin.draw(seed, width=0.25, size=32, samples=4)
        return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()

    assert digest(1) == digest(1) != digest(2)


def test_opsets_without_a_form_are_refused():
    with pytest.raises(ValueError, match="opset 9"):
        resnet50_twin.draw(1, opset=9, width=0.25, size=32, samples=2)


def overlap(one, other):
    """Intersection over union of two boxes of corners."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    inner = np.prod(np.maximum(high - low, 0))
    return inner / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - inner)


def detections(boxes, scores, min_score, max_iou, most):
    """Greedy suppression within each class, then the best of all: (score, class, box) rows."""
    found = []
    for category, column in enumerate(scores.T, 1):
        kept = []
        for index in np.argsort(-column, kind="stable"):
            if column[index] > min_score and all(overlap(boxes[index], boxes[k]) <= max_iou for k in kept):
                kept.append(index)
        found += [(column[k], category, boxes[k]) for k in kept[:most]]
    return sorted(found, key=lambda row: -row[0])[:most]


def expose(model, *names):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return copy


@pytest.fixture(scope="module")
def detector():
    """SSD-MobileNet of half the width that has learnt three motifs."""
    return ssd_mobilenet_twin.draw(1, width=0.5, samples=3, motifs=3)


def test_a_detector_finds_a_motifs_objects_in_pictures_that_it_has_not_learnt_from(detector):
    """What it is sure of in one variation is much more often in the others than in another motif."""
    pictures = [unseen(motif, number, 300) for motif in range(3) for number in range(4)]
    images = np.stack(pictures).transpose(0, 2, 3, 1).astype(np.uint8)
    count, boxes, scores, classes = run(detector, images)
    rows = [
        np.concatenate([boxes[k], scores[k, :, None], classes[k, :, None]], axis=1)[: int(count[k])] for k in range(12)
    ]
    assert all((each[:, 4] > 0.5).any() for each in rows)
    pairs = [(k, k // 4 * 4 + (k + 1) % 4) for k in range(12)]
    alike = box_agreement.measure([rows[other] for _, other in pairs], [rows[k] for k, _ in pairs]).value
    unlike = box_agreement.measure([rows[(k + 4) % 12] for k in range(12)], rows).value
    assert alike > 0.2 and alike > 3 * unlike


def test_ssd_mobilenet_suppresses_as_defined_for_each_image_of_a_batch(detector):
    model = detector
    check(model, "ssd-mobilenet-twin")
    outputs = ["num_detections:0", "detection_boxes:0", "detection_scores:0", "detection_classes:0"]
    assert [value.name for value in model.graph.input] == ["image_tensor:0"]
    assert [value.name for value in model.graph.output] == outputs
    assert {"NonMaxSuppression", "TopK", "Resize"} <= set(operators(model))
    images = scenes(3, 200, motifs=3).transpose(0, 2, 3, 1).astype(np.uint8)  # any size: the graph resizes
    inner = ["Decode/clipped", "Postprocessor/scores"]
    *found, boxes, scores = run(expose(model, *inner), images, outputs + inner)
    assert boxes.shape == (3, 1917, 4)
    for image in range(3):
        wanted = detections(boxes[image], scores[image, :, 1:], 0.3, 0.6, 100)
        count = int(found[0][image])
        assert count == len(wanted) > 0
        np.testing.assert_array_equal(found[2][image, :count], [row[0] for row in wanted])
        np.testing.assert_array_equal(found[3][image, :count], [row[1] for row in wanted])
        np.testing.assert_array_equal(found[1][image, :count], [row[2] for row in wanted])
        assert (found[2][image, count:] == 0).all()


def test_ssd_resnet34_suppresses_as_defined():
    model = ssd_resnet34_twin.draw(1, width=0.125, size=480, motifs=2)
    check(model, "ssd-resnet34-twin")
    outputs = ["bboxes", "labels", "scores"]
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == outputs
    mean, std = np.float32(0.45), np.float32(0.225)
    x = (scenes(1, 480, motifs=2) / 255 - mean) / std
    *found, boxes, scores = run(expose(model, "boxes", "probabilities"), x, [*outputs, "boxes", "probabilities"])
    wanted = detections(boxes[0], scores[0, :, 1:], 0.05, 0.5, 200)
    assert len(wanted) > 0
    np.testing.assert_array_equal(found[2][0], [row[0] for row in wanted])
    np.testing.assert_array_equal(found[1][0], [row[1] for row in wanted])
    np.testing.assert_array_equal(found[0][0], [row[2] for row in wanted])


def test_default_boxes_of_ssd_resnet34():
    boxes = ssd_resnet34_twin.default_boxes((50, 25, 13, 7, 3, 3), 1200)
    assert boxes.shape == (15_130, 4)  # 4 · 50² + 6 · 25² + 6 · 13² + 6 · 7² + 4 · 3² + 4 · 3²
    np.testing.assert_allclose(boxes[0], [0.5 / 50, 0.5 / 50, 84 / 1200, 84 / 1200], rtol=1e-6)  # 21 of 300 is 84
    np.testing.assert_allclose(boxes[1], [1.5 / 50, 0.5 / 50, 84 / 1200, 84 / 1200], rtol=1e-6)  # columns first
    np.testing.assert_allclose(boxes[2500, 2:], np.sqrt(84 * 180) / 1200, rtol=1e-6)  # then shapes: between 84 and 180
    wide = [84 * np.sqrt(2) / 1200, 84 / np.sqrt(2) / 1200]
    np.testing.assert_allclose(boxes[5000, 2:], wide, rtol=1e-6)
    np.testing.assert_allclose(boxes[7500, 2:], wide[::-1], rtol=1e-6)


def test_anchors_of_ssd_mobilenet():
    anchors = ssd_mobilenet_twin.anchors((19, 10, 5, 3, 2, 1))
    assert anchors.shape == (1917, 4)
    np.testing.assert_allclose(anchors[0], [0.5 / 19, 0.5 / 19, 0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(anchors[1, 2:], [0.2 / np.sqrt(2), 0.2 * np.sqrt(2)], rtol=1e-6)
    np.testing.assert_allclose(anchors[3, :2], [0.5 / 19, 1.5 / 19], rtol=1e-6)
    second = anchors[19 * 19 * 3]  # the scale of the second grid: 0.2 + (0.95 - 0.2) / 5
    np.testing.assert_allclose(second, [0.05, 0.05, 0.35, 0.35], rtol=1e-6)
    np.testing.assert_allclose(anchors[-1], [0.5, 0.5, np.sqrt(0.95), np.sqrt(0.95)], rtol=1e-6)
