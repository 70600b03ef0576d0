import grain
import numpy as np
import pytest

from clmrc_jax.data.pipeline import make_dataset, pad_to_bucket
from clmrc_jax.files import InputError


def rows_and_epoch(rows, rngs, epoch):
    return {
        "row": np.array(rows),
        "epoch": np.full(len(rows), epoch),
        "noise": np.array([rng.integers(2**31) for rng in rngs]),
    }


def dataset(count=10, **options):
    settings = {"batch_size": 4, "seed": 3, "transform": rows_and_epoch} | options
    return make_dataset(list(range(count)), **settings)


def order(data, batches):
    return np.concatenate([data[b]["row"] for b in range(batches)])


def test_make_dataset_one_epoch_gives_every_row_once_in_seeded_order():
    first = order(dataset(), 5)  # 20 places = 2 epochs of 10 rows
    assert sorted(first[:10]) == sorted(first[10:]) == list(range(10))
    assert list(first[:10]) != list(range(10)) and list(first[:10]) != list(first[10:])
    np.testing.assert_array_equal(first, order(dataset(), 5))
    assert list(first) != list(order(dataset(seed=4), 5))


def test_make_dataset_batch_across_epochs_loses_nothing_and_tells_the_epoch():
    data = dataset()
    assert [data[b]["epoch"][0] for b in range(6)] == [0, 0, 0, 1, 1, 2]


def test_make_dataset_counts_epochs_of_a_given_length():
    data = dataset(epoch_length=4)  # one batch, though the source has 10 rows
    assert [data[b]["epoch"][0] for b in range(4)] == [0, 1, 2, 3]


def test_make_dataset_finite_epochs_fill_the_last_batch():
    data = dataset(epochs=1)
    assert len(data) == 3
    assert set(order(data, 3)) == set(range(10))


def test_make_dataset_hosts_split_the_same_global_batches():
    whole = dataset()
    hosts = [dataset(host_index=i, host_count=2) for i in range(2)]
    for batch in (0, 2, 7):
        joined = np.concatenate([host[batch]["row"] for host in hosts])
        np.testing.assert_array_equal(joined, whole[batch]["row"])
        noise = np.concatenate([host[batch]["noise"] for host in hosts])
        np.testing.assert_array_equal(noise, whole[batch]["noise"])
        epochs = {int(host[batch]["epoch"][0]) for host in hosts}
        assert epochs == {int(whole[batch]["epoch"][0])}


def test_make_dataset_batches_are_random_access_and_reproduce_the_noise():
    data = dataset()
    later = data[9]
    for batch in range(9):
        assert not np.array_equal(data[batch]["noise"], later["noise"])
    np.testing.assert_array_equal(dataset()[9]["noise"], later["noise"])


def test_make_dataset_iterator_state_continues_exactly():
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    read = iter(dataset().to_iter_dataset(options))
    for _ in range(3):
        next(read)
    state = read.get_state()
    expected = [next(read)["noise"] for _ in range(3)]
    again = iter(dataset().to_iter_dataset(options))
    again.set_state(state)
    for noise in expected:
        np.testing.assert_array_equal(next(again)["noise"], noise)


def test_make_dataset_source_smaller_than_batch_repeats_epochs():
    assert sorted(dataset(count=2)[0]["row"]) == [0, 0, 1, 1]


def test_make_dataset_without_shuffle_keeps_the_order():
    np.testing.assert_array_equal(order(dataset(shuffle=False), 5), np.arange(20) % 10)


SIZES = np.random.default_rng(5).integers(0, 4, 1203)


def sized(**options):
    def transform(rows, rngs, epoch, size):
        return rows_and_epoch(rows, rngs, epoch) | {"size": np.full(len(rows), size)}

    settings = {"count": len(SIZES), "batch_size": 8, "transform": transform, "sizes": SIZES}
    return dataset(**settings | options)


def test_rows_of_like_size_share_batches_and_none_is_lost():
    data, batches = sized(), 3 * len(SIZES) // 8
    rows = order(data, batches).reshape(batches, 8)
    for epoch in range(2):  # 1203 is no multiple of 8: the second epoch begins within a batch
        places = rows.ravel()[epoch * len(SIZES) : (epoch + 1) * len(SIZES)]
        assert sorted(places) == list(range(len(SIZES)))
    largest = SIZES[rows].max(axis=1)
    assert [data[b]["size"][0] for b in range(batches)] == list(largest)
    waste = largest.mean() - SIZES.mean()
    assert waste < 0.15, "batches drawn at random waste 1.4 of the four classes"
    assert not np.array_equal(np.sort(largest[:50]), largest[:50]), "sizes come in random order"
    alike = dataset(count=len(SIZES), batch_size=8)
    assert not np.array_equal(rows[0], order(alike, 1))


def test_one_size_keeps_the_order_of_none():
    alike = sized(sizes=np.zeros(len(SIZES), int))
    np.testing.assert_array_equal(
        order(alike, 9), order(dataset(count=len(SIZES), batch_size=8), 9)
    )


def test_hosts_agree_on_the_size_of_the_global_batch():
    whole, hosts = sized(), [sized(host_index=i, host_count=4) for i in range(4)]
    for batch in range(0, 300, 7):
        parts = [host[batch] for host in hosts]
        joined = np.concatenate([part["row"] for part in parts])
        np.testing.assert_array_equal(joined, whole[batch]["row"])
        assert {int(part["size"][0]) for part in parts} == {int(whole[batch]["size"][0])}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "training data are empty"),
        ({"host_count": 3}, "batch_size 4 does not divide over 3 hosts"),
        ({"host_index": 2, "host_count": 2}, "host_index 2 is outside 0..1"),
    ],
)
def test_make_dataset_bad_sizes_raise(options, message):
    with pytest.raises(InputError, match=message):
        dataset(**options)


def test_pad_to_bucket_takes_the_smallest_that_fits():
    ids, mask = pad_to_bucket([[5, 6, 7], [8], []], (2, 4, 8), pad_id=9)
    np.testing.assert_array_equal(ids, [[5, 6, 7, 9], [8, 9, 9, 9], [9, 9, 9, 9]])
    np.testing.assert_array_equal(mask.sum(1), [3, 1, 0])
    assert ids.dtype == np.int32 and mask.dtype == bool


def test_pad_to_bucket_too_long_raises():
    with pytest.raises(InputError, match="a sequence has 9 tokens, the longest bucket holds 8"):
        pad_to_bucket([list(range(9))], (4, 8), pad_id=0)
