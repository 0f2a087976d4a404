from flexiact_core.flexiact.released import find_released_actions, read_released_action


def test_the_authors_folder_is_read_as_it_is(benchmark):
    found = find_released_actions(benchmark.parent)
    assert list(found) == ["human/rotate"]
    action = read_released_action(found["human/rotate"])
    assert (action.kind, action.name) == ("human", "rotate")
    assert [clip.caption for clip in action.clips] == ['A "big" turn, no. 0', 'A "big" turn, no. 1']
    assert all(clip.path.is_file() and clip.start == 0 and clip.duration == 78 / 30 for clip in action.clips)
    assert [(path.name, caption) for path, caption in action.targets] == [("girl.webp", "A girl, turning")]


def test_an_action_without_target_pictures_is_read(benchmark):
    folder = find_released_actions(benchmark)["human/rotate"]
    (folder / "val_image.csv").unlink()
    assert read_released_action(folder).targets == ()
