"""Installs clmrc_jax; the lower bounds are versions that the test suite has passed with."""

from setuptools import find_packages, setup

REQUIRED = [
    "jax>=0.10.0",
    "flax>=0.12.7",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.11.39",
    "grain>=0.2.16",
    "array_record>=0.8.1",
    "ml-collections>=1.1.0",
    "transformers>=5.0",
    "tokenizers>=0.22",
    "sentencepiece>=0.2.3",
    "safetensors>=0.6",
    "tensorflow-datasets>=4.9.9",
    "importlib_resources",  # tensorflow-datasets without TensorFlow needs it and does not say so
    "etils[epath]>=1.13",
    "fsspec",
    "babel==2.18.*",  # its CLDR tables are the embedded corpus: another release, other facts
    "rich>=14.1",  # progress bars within progress bars
    "matplotlib>=3.9",
    "numpy>=2.0",
    # ScaNN has wheels for Linux only; elsewhere index.kind="exact" or "numpy" serve.
    "scann>=1.4.2; platform_system == 'Linux'",
]
EXTRAS = {
    "tpu": ["jax[tpu]>=0.10.0"],
    "cuda": ["jax[cuda12]>=0.10.0"],
    "segment": [
        "mecab-python3>=1.0.10",
        "unidic-lite>=1.0.8",
        "jieba>=0.42.1",
        "pythainlp>=5.0",
        "khmer-nltk>=1.6",
        "nltk>=3.9",
    ],
    "tensorboard": ["tensorboardX>=2.6"],
    # The TPU compiler, for launch/tpu_compile.py on a machine without a TPU; of the libtpus the
    # one that belongs to the jax: others fail on some chips.
    "compile": ["jax[tpu]>=0.10.0; platform_system == 'Linux' and platform_machine == 'x86_64'"],
    "translate": ["sacrebleu>=2.6"],
    "google": ["google-cloud-translate>=3.28"],
    "gcs": ["etils[epath-gcs]>=1.13", "gcsfs"],
}
EXTRAS["test"] = [
    *EXTRAS["segment"],
    *EXTRAS["translate"],
    *EXTRAS["compile"],
    "pytest>=8",
    "setuptools>=65",  # builds the package in a test; Python 3.12 comes without it
    "pytest-xdist>=3.6",
    "ruff==0.17.6",
    "chex>=0.1.91",
]

setup(
    name="clmrc_jax",
    version="0.1.0",
    description="Question answering across languages in JAX: CORA (mDPR + mGEN) and Dual BERT",
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    packages=find_packages(include=["clmrc_jax", "clmrc_jax.*"]),
    package_data={
        "clmrc_jax.data.world_facts": ["*.json"],
        "clmrc_jax": ["pretrained/*", "pretrained/*/*"],
    },
    install_requires=REQUIRED,
    extras_require=EXTRAS,
)
