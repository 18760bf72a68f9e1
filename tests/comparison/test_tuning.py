from modelsgenesis.comparison.tuning import choose

KEY = ("scratch", 5)
RATES = [(f"learning_rate={rate}",) for rate in ("1e-3", "3e-3", "1e-2")]


def chosen(*scores, metric="dice"):
    return choose({KEY: dict(zip(RATES, scores, strict=False))}, metric)[KEY]


def test_the_best_mean_is_chosen_and_every_score_kept():
    choice = chosen([0.5, 0.7], [0.8, 0.6], [0.9, 0.3])
    assert choice["chosen"] == ["learning_rate=3e-3"]
    assert choice["edge"] == []
    assert [candidate["scores"] for candidate in choice["candidates"]] == [[0.5, 0.7], [0.8, 0.6], [0.9, 0.3]]


def test_a_candidate_that_diverged_once_is_last():
    choice = chosen([0.1, 0.1], [0.9, None], [float("nan"), 0.9])
    assert choice["chosen"] == ["learning_rate=1e-3"]
    assert [candidate["mean"] for candidate in choice["candidates"]] == [0.1, None, None]


def test_of_equals_the_first_is_chosen():
    assert chosen([0.5], [0.5], [0.5])["chosen"] == ["learning_rate=1e-3"]


def test_the_edge_of_what_was_tried_is_said():
    assert chosen([0.5], [0.6], [0.7])["edge"] == ["learning_rate=1e-2"]
    assert chosen([0.7], [0.6])["edge"] == []  # of two, one is always at the edge


def test_of_a_distance_the_smallest_is_best():
    assert chosen([5.0], [3.0], [4.0], metric="hausdorff95")["chosen"] == ["learning_rate=3e-3"]


def test_each_arm_and_label_count_chooses_for_itself():
    scores = {("a", 5): {RATES[0]: [1.0], RATES[1]: [0.0]}, ("a", 9): {RATES[0]: [0.0], RATES[1]: [1.0]}}
    choices = choose(scores, "dice")
    assert [choice["chosen"] for choice in choices.values()] == [list(RATES[0]), list(RATES[1])]
