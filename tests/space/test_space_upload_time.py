"""The tool that measures how long a first result over own files takes."""

from small_files import write_picture

from space.tools.upload_time import wait


def test_a_first_result_comes_before_all_files_are_read_and_the_session_is_ended(service, tmp_path):
    files = [write_picture(tmp_path / f"{number}.png", seed=number) for number in range(3)]
    first, last = wait(service, "measured", files)
    assert 0 < first < last
    assert not service.sessions.of("measured").own(service.corpora[0].id)
    service.sessions.end("measured")
