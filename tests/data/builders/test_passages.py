from clmrc_jax.data.builders.passages import Passages


def test_passages_are_prepared_with_the_language_of_their_file(tmp_path):
    (tmp_path / "p.tsv").write_text('1\t"a ""quoted"" text"\tT\n', encoding="utf-8")
    builder = Passages(files={"train": [(str(tmp_path / "p.tsv"), "sv")]}, data_dir=tmp_path)
    builder.download_and_prepare()
    assert list(builder.as_data_source(split="train")) == [
        {
            "id": b"1",
            "lang": b"sv",
            "article_id": b"sv:T",
            "title": b"T",
            "text": b'a "quoted" text',
        }
    ]
