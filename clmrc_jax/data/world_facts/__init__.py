"""The embedded corpus: facts of Unicode CLDR as articles, questions and pre-training exercises."""
