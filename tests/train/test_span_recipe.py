from clmrc_jax.train import optimizer, span_recipe


def test_steps_and_warm_up_follow_the_number_of_windows():
    windows = 64 * 100 + 63
    assert span_recipe.OFFICIAL.steps(windows) == 201  # int(100.98 * 2)
    config = span_recipe.OFFICIAL.optimizer_config(windows)
    assert (config.name, config.schedule, config.warmup_steps) == ("official_adam", "official", 20)
    assert optimizer.schedule(config, 0, 201) == 0
    assert span_recipe.Recipe(warmup=0).optimizer_config(windows).warmup_steps == 0


def test_published_learning_rates():
    assert span_recipe.PAPER.learning_rate == 4e-5 and span_recipe.OFFICIAL.learning_rate == 2e-5
    assert span_recipe.PAPER.optimizer_config(6400).name == "adamw"
