"""The small Dual BERT of the float64 reference, as the package builds it."""

import dual_bert_reference as reference
from clmrc_jax.models import dual_bert, official_names
from clmrc_jax.models.bert import BertConfig

BERT = BertConfig(
    vocab_size=reference.SIZES["vocab"],
    hidden_size=reference.SIZES["size"],
    num_hidden_layers=reference.SIZES["layers"],
    num_attention_heads=reference.HEADS,
    intermediate_size=reference.SIZES["mlp"],
    max_position_embeddings=reference.SIZES["positions"],
)
ROWS = official_names.dual_bert_variables(dual_bert.paper(BERT))
VARIABLES = reference.random_variables()
PARAMS = official_names.from_official(ROWS, VARIABLES)
# The package's config of each mode, and the reference's options.
MODES = {
    "official": (dual_bert.official, reference.OFFICIAL),
    "paper": (dual_bert.paper, reference.PAPER),
}
