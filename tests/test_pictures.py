"""Pictures from real files, a real HTTP server, an in-memory store and a real S3 server; every fault by its rule."""

import hashlib
import io
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from sosie.errors import TerminalError
from sosie.pictures import Inspection, PictureFault, Thumbnails, decode, fetch, inspect
from sosie.pictures.patience import Patience
from sosie.pictures.sources import SCHEMES, locate
from sosie.settings import Validation

RULES = Validation(
    max_picture_bytes=200_000, max_picture_pixels=1_000_000, picture_timeout_seconds=1.0, picture_roots=()
)


def drawing(width: int = 300, height: int = 200, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, w, h = (int(value) for value in rng.uniform(0, [width, height, width / 2, height / 2]))
        draw.rectangle((x, y, x + w, y + h), tuple(int(value) for value in rng.integers(0, 256, 3)))
    return image


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def thumbnails(tmp_path: Path) -> Thumbnails:
    return Thumbnails(str(tmp_path / "thumbnails"))


def look(data: bytes, folder: Path, thumbnails: Thumbnails, rules: Validation = RULES) -> Inspection:
    (folder / "picture").write_bytes(data)
    (found,) = inspect(["picture"], root=str(folder), thumbnails=thumbnails, rules=rules)
    return found


# ── Where pictures come from ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_relative_uri_lies_under_the_root(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a b.jpg").write_bytes(b"data")
    assert fetch("pictures/a b.jpg", str(tmp_path), RULES) == b"data"
    assert fetch("pictures/../pictures/a b.jpg", str(tmp_path), RULES) == b"data"
    assert fetch(str(tmp_path / "pictures/a b.jpg"), str(tmp_path), RULES) == b"data"
    assert fetch((tmp_path / "pictures/a b.jpg").as_uri(), str(tmp_path), RULES) == b"data"
    assert fetch("a b.jpg", (tmp_path / "pictures").as_uri().replace("%20", " "), RULES) == b"data"


@pytest.mark.parametrize("root", ["/data/landing", "s3://bucket/landing", "https://shop.example/landing"])
@pytest.mark.parametrize("uri", ["../secret.jpg", "a/../../secret.jpg", "..", "..\\secret.jpg"])
def test_a_relative_uri_can_not_leave_the_root(root: str, uri: str) -> None:
    with pytest.raises(PictureFault) as fault:
        locate(uri, root)
    assert fault.value.rule == "picture_outside_root"


def test_nor_by_the_encoding_that_a_server_undoes() -> None:
    with pytest.raises(PictureFault, match="leaves the pictures' root"):
        locate("%2e%2e/secret.jpg", "https://shop.example/landing")
    assert locate("%2e%2e/x.jpg", "/data") == "/data/%2e%2e/x.jpg"


def allowing(*roots: str) -> Validation:
    return RULES.model_copy(update={"picture_roots": Validation(picture_roots=roots).picture_roots})


def refused(uri: str, root: str, rules: Validation = RULES) -> bool:
    """Whether `uri` is refused for where it lies."""
    try:
        fetch(uri, root, rules)
    except PictureFault as fault:
        return fault.rule == "picture_outside_root"
    return False


def test_a_local_address_lies_below_the_root_or_a_folder_of_the_setting(tmp_path: Path) -> None:
    root, other, away = (tmp_path / name for name in ("root", "other", "away"))
    for folder in (root, other, away):
        folder.mkdir()
        (folder / "a.jpg").write_bytes(b"data")
    (root / "link.jpg").symlink_to(away / "a.jpg")
    (root / "linked").symlink_to(other)
    inside = ["a.jpg", str(root / "a.jpg"), (root / "a.jpg").as_uri()]
    others = ["linked/a.jpg", str(other / "a.jpg"), (other / "a.jpg").as_uri(), f"{root}/../other/a.jpg"]
    outside = ["link.jpg", str(away / "a.jpg"), (away / "a.jpg").as_uri(), f"{other}/../away/a.jpg", f"{other}er/a.jpg",
               f"file://{root}/%2e%2e/away/a.jpg", "/etc/hostname", str(away / "nothing.jpg")]  # fmt: skip
    for uri in inside:
        assert fetch(uri, str(root), RULES) == b"data"
        assert fetch(uri, root.as_uri(), RULES) == b"data"
    for uri in (*others, *outside):
        assert refused(uri, str(root)), uri
    for uri in (str(root / "a.jpg"), (root / "a.jpg").as_uri()):
        assert refused(uri, "https://shop.example/pictures")
        assert refused(uri, "")
    for rules in (allowing(str(other)), allowing(other.as_uri(), "s3://elsewhere")):
        assert [fetch(uri, str(root), rules) for uri in others] == [b"data"] * len(others)
        assert all(refused(uri, str(root), rules) for uri in outside)


def test_where_no_place_is_told_a_feed_names_what_workers_can_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"data")
    for uri in (str(tmp_path / "a.jpg"), (tmp_path / "a.jpg").as_uri()):
        assert fetch(uri, "/elsewhere", Validation()) == b"data"
        assert refused(uri, "/elsewhere")


def test_an_objects_address_lies_below_the_root_or_a_url_of_the_setting() -> None:
    store = fsspec.filesystem("memory")
    for folder in ("pictures", "picturesque", "other", "away"):
        store.pipe_file(f"/{folder}/a.jpg", b"data")
    outside = ["memory://picturesque/a.jpg", "memory://away/a.jpg", "memory://pictures/../away/a.jpg",
               "memory://pictures/%2e%2e/away/a.jpg", "memory:///away/a.jpg", "s3://pictures/a.jpg",
               "/etc/hostname"]  # fmt: skip
    assert fetch("memory://pictures/a.jpg", "memory://pictures", RULES) == b"data"
    for uri in (*outside, "memory://other/a.jpg"):
        assert refused(uri, "memory://pictures"), uri
        assert refused(uri, "/data/landing"), uri
    rules = allowing("memory://other/")
    assert fetch("memory://other/a.jpg", "/data/landing", rules) == b"data"
    assert all(refused(uri, "memory://pictures", rules) for uri in outside)
    assert fetch("memory://away/a.jpg", "/data/landing", allowing("memory://")) == b"data"


@given(st.text(st.sampled_from("ab./\\%2e"), max_size=14).filter(lambda uri: not uri.startswith("/")))
def test_no_spelling_leaves_a_local_root(uri: str) -> None:
    try:
        address = locate(uri, "/data/landing")
    except PictureFault:
        return
    assert Path(address).resolve().is_relative_to("/data/landing")


@pytest.mark.parametrize(
    "uri", ["ftp://host/a.jpg", "simplecache::s3://bucket/a.jpg", "zip://a.jpg::https://host/a.zip"]
)
def test_other_schemes_are_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(PictureFault) as fault:
        fetch(uri, str(tmp_path), RULES)
    assert fault.value.rule in ("picture_unreachable", "picture_missing")
    assert "ftp" not in SCHEMES


@pytest.mark.parametrize(
    "uri", ["memory://a.jpg::memory://b.jpg", "s3://bucket/a.jpg?::file:///etc/hostname", "a.jpg::memory"]
)
def test_a_chain_of_stores_is_refused(uri: str) -> None:
    with pytest.raises(PictureFault, match="chains stores"):
        fetch(uri, "memory://pictures", RULES)


def test_no_file_a_folder_and_a_pipe_are_missing(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for uri in ("nothing.jpg", ".", "pipe", "a\0b", "nothing.jpg/below", "loop", f"file://{tmp_path}/a%00b"):
        with pytest.raises(PictureFault) as fault:
            fetch(uri, str(tmp_path), RULES)
        assert fault.value.rule == "picture_missing", uri


def test_memory_store_as_root_and_as_uri() -> None:
    store = fsspec.filesystem("memory")
    store.pipe_file("/pictures/a.jpg", b"data")
    assert fetch("a.jpg", "memory://pictures", RULES) == b"data"
    assert fetch("memory://pictures/a.jpg", "memory://pictures", RULES) == b"data"
    with pytest.raises(PictureFault) as fault:
        fetch("memory://pictures/b.jpg", "memory://pictures", RULES)
    assert fault.value.rule == "picture_missing"


# ── By HTTP ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine's is: servers of these tests are its own."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@dataclass
class Shop:
    """A server with a picture and every way to fail."""

    picture: bytes = field(default_factory=lambda: encoded(drawing()))
    asked: Counter[str] = field(default_factory=Counter)
    logins: list[str | None] = field(default_factory=list)
    sent: int = 0
    url: str = ""


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    held = Shop()
    release = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            held.asked[self.path] += 1
            held.logins.append(self.headers["Authorization"])
            if self.path in ("/missing.jpg", "/forbidden.jpg", "/broken.jpg"):
                self.send_error({"/missing.jpg": 404, "/forbidden.jpg": 403, "/broken.jpg": 503}[self.path])
            elif self.path == "/busy.jpg" and held.asked[self.path] == 1:
                self.send_error(503)
            elif self.path.endswith("/moved.jpg"):
                self.send_response(302)
                self.send_header("Location", "/a.jpg")
                self.end_headers()
            elif self.path == "/endless.jpg":
                self.send_response(200)
                self.end_headers()
                try:
                    while held.sent < 50_000_000:
                        self.wfile.write(bytes(65_536))
                        held.sent += 65_536
                except OSError:
                    return
            elif self.path.startswith("/silent.jpg"):
                release.wait(10)
            elif self.path == "/slow.jpg":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"\xff\xd8\xff")
                self.wfile.flush()
                release.wait(10)
            elif self.path == "/cut.jpg":
                self.send_response(200)
                self.send_header("Content-Length", str(len(held.picture)))
                self.end_headers()
                self.wfile.write(held.picture[:500])
            else:
                body = b"<!doctype html>Not what you think" if self.path == "/page.jpg" else held.picture
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    held.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield held
    release.set()
    server.shutdown()
    server.server_close()


def test_http(shop: Shop, tmp_path: Path) -> None:
    assert fetch(f"{shop.url}/a.jpg", str(tmp_path), RULES) == shop.picture
    assert shop.asked["/a.jpg"] == 1
    assert fetch("b.jpg", shop.url, RULES) == shop.picture
    assert fetch(f"{shop.url}/moved.jpg", "", RULES) == shop.picture
    assert fetch(f"HTTP{shop.url[4:]}/c.jpg", "", RULES) == shop.picture
    assert fetch(f"{shop.url}/d::e.jpg", "", RULES) == shop.picture
    assert fetch("d::e.jpg", shop.url, RULES) == shop.picture


def test_a_proxy_of_the_environment_is_asked_for_every_picture(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", shop.url)
    assert fetch("http://pictures.invalid/by-proxy.jpg", "", RULES) == shop.picture
    assert shop.asked["http://pictures.invalid/by-proxy.jpg"] == 1
    assert fetch("moved.jpg", "http://pictures.invalid", RULES) == shop.picture
    assert shop.asked["http://pictures.invalid/a.jpg"] == 1, "where it was sent on to too"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert fetch(f"{shop.url}/past-it.jpg", "", RULES) == shop.picture
    assert shop.asked["/past-it.jpg"] == 1


def test_no_login_of_this_machine_is_told_to_a_host_that_a_feed_names(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login worker password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    own = shop.url.replace("http://", "http://seller:word@")
    for uri, logins in ((f"{shop.url}/a.jpg", [None]), (f"{own}/a.jpg", ["Basic c2VsbGVyOndvcmQ="])):
        shop.logins.clear()
        assert fetch(uri, "", RULES) == shop.picture
        assert shop.logins == logins


def test_an_address_of_ipv6(tmp_path: Path) -> None:
    with pytest.raises(PictureFault, match=r"^http://\[::1\]:9/x\.jpg can't be read: ClientConnectorError"):
        fetch("http://[::1]:9/x.jpg", str(tmp_path), RULES)


def test_a_busy_server_is_asked_once_more(shop: Shop) -> None:
    assert fetch(f"{shop.url}/busy.jpg", "", RULES) == shop.picture
    with pytest.raises(PictureFault, match="503"):
        fetch(f"{shop.url}/broken.jpg", "", RULES)
    assert (shop.asked["/busy.jpg"], shop.asked["/broken.jpg"]) == (2, 2)


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("missing.jpg", "picture_missing"),
        ("forbidden.jpg", "picture_unreachable"),
        ("slow.jpg", "picture_unreachable"),
        ("cut.jpg", "picture_unreachable"),
        ("endless.jpg", "picture_too_large"),
    ],
)
def test_http_faults(shop: Shop, path: str, rule: str) -> None:
    with pytest.raises(PictureFault) as fault:
        fetch(f"{shop.url}/{path}", "", RULES)
    assert fault.value.rule == rule
    assert shop.url in fault.value.detail


def test_an_endless_answer_is_not_read_to_its_end(shop: Shop) -> None:
    with pytest.raises(PictureFault):
        fetch(f"{shop.url}/endless.jpg", "", RULES)
    time.sleep(0.1)
    assert shop.sent < 50_000_000


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for uri in (f"http://127.0.0.1:{port}/a.jpg", "http://", "http:///a.jpg"):
        with pytest.raises(PictureFault) as fault:
            fetch(uri, "", RULES)
        assert fault.value.rule == "picture_unreachable"


def test_a_page_in_place_of_a_picture(shop: Shop, thumbnails: Thumbnails) -> None:
    (found,) = inspect([f"{shop.url}/page.jpg"], root="", thumbnails=thumbnails, rules=RULES)
    assert (found.fault_rule, found.fault_detail) == ("picture_unreadable", "A web page, and no picture.")


# ── Hosts that don't answer ──────────────────────────────────────────────────────────────────────────────────────────


def test_patience_ends_after_failures_in_a_row() -> None:
    patience = Patience(failures=3, seconds=60.0)
    for host, fails in (("a", 2), ("b", 3)):
        for _ in range(fails):
            patience.failed(host)
    assert patience.spent("a") is None
    assert "b left requests unanswered, 3 in a row" in (patience.spent("b") or "")
    patience.answered("a")
    patience.failed("a")
    patience.failed("a")
    assert patience.spent("a") is None
    assert patience.given_up == ["b"]
    patience.answered("b")
    assert patience.spent("b") is None, "one that was under way got an answer after all"


def test_patience_ends_for_all_when_its_seconds_are_over() -> None:
    now = [100.0]
    patience = Patience(failures=3, seconds=60.0, clock=lambda: now[0])
    assert patience.spent("a") is None
    now[0] = 160.0
    assert "60 s for pictures of this hour were over" in (patience.spent("a") or "")


def test_patience_counts_what_many_threads_tell() -> None:
    patience = Patience(failures=8 * 2_000, seconds=60.0)

    def fail() -> None:
        for _ in range(2_000):
            patience.failed("a")

    threads = [threading.Thread(target=fail) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert patience.given_up == ["a"]


def test_a_host_that_never_answers_is_soon_asked_no_more(shop: Shop, thumbnails: Thumbnails) -> None:
    rules = RULES.model_copy(update={"picture_timeout_seconds": 0.2, "picture_host_failures": 5})
    silent = [f"{shop.url}/silent.jpg?{number}" for number in range(60)]
    other = f"{shop.url.replace('127.0.0.1', 'localhost')}/other-host.jpg"
    *found, last = inspect([*silent, other], root="", thumbnails=thumbnails, rules=rules)
    assert {one.fault_rule for one in found} == {"picture_unreachable"}
    untold = [one.fault_detail for one in found if "was not asked for: 127.0.0.1" in (one.fault_detail or "")]
    asked = 60 - len(untold)
    assert 5 <= asked <= 5 + 7, "as many as it takes, and those that eight threads had under way"
    # A busy server may have seen fewer of them before their time was over.
    assert sum(shop.asked[uri.removeprefix(shop.url)] for uri in silent) <= asked
    assert last.image_hash


def test_hosts_that_say_no_are_asked_for_the_next_picture(shop: Shop, thumbnails: Thumbnails) -> None:
    rules = RULES.model_copy(update={"picture_host_failures": 1})
    uris = [f"{shop.url}/{path}.jpg" for path in ("forbidden", "missing", "cut", "page", "endless", "after-all")]
    for uri in uris:
        shop.asked.clear()
        inspect([uri] * 2 + [f"{shop.url}/last.jpg"], root="", thumbnails=thumbnails, rules=rules, threads=1)
        assert shop.asked["/last.jpg"] == 1, uri
    found = inspect([f"{shop.url}/broken.jpg", uris[-1]], root="", thumbnails=thumbnails, rules=rules, threads=1)
    assert "left requests unanswered, 1 in a row" in (found[-1].fault_detail or ""), (
        "one that is too busy is given up like one away"
    )


def test_no_host_is_asked_when_the_hours_seconds_are_over(shop: Shop, tmp_path: Path, thumbnails: Thumbnails) -> None:
    (tmp_path / "a.jpg").write_bytes(shop.picture)
    rules = RULES.model_copy(update={"picture_seconds": 1e-9})
    local, remote = inspect(["a.jpg", f"{shop.url}/late.jpg"], root=str(tmp_path), thumbnails=thumbnails, rules=rules)
    assert local.image_hash, "what lies on a disk is looked at"
    assert (remote.fault_rule, shop.asked["/late.jpg"]) == ("picture_unreachable", 0)
    assert "validation.picture_seconds" in (remote.fault_detail or "")


# ── An object store ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    for name, value in {"KEY": "test", "SECRET": "test"}.items():
        monkeypatch.setitem(fsspec.config.conf.setdefault("s3", {}), name.lower(), value)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setitem(fsspec.config.conf["s3"], "endpoint_url", f"http://{host}:{port}")
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("bucket")
    yield "s3://bucket"
    server.stop()


def test_s3_pictures_and_thumbnails(bucket: str) -> None:
    data = encoded(drawing())
    store = fsspec.filesystem("s3")
    store.pipe_file("bucket/landing/a.jpg", data)
    store.pipe_file("bucket/landing/big.jpg", bytes(RULES.max_picture_bytes + 1))
    store.pipe_file("bucket/landing/empty.jpg", b"")
    thumbnails = Thumbnails(f"{bucket}/lake/pictures")
    uris = ["a.jpg", f"{bucket}/landing/a.jpg", "b.jpg", "big.jpg", "empty.jpg", "s3://no-such-bucket/a.jpg"]
    found = inspect(uris, root=f"{bucket}/landing", thumbnails=thumbnails, rules=RULES)
    digest = hashlib.sha256(data).hexdigest()
    assert [one.image_hash for one in found] == [digest, digest, None, None, None, None]
    assert [one.fault_rule for one in found[2:]] == [
        "picture_missing",
        "picture_too_large",
        "picture_empty",
        "picture_outside_root",
    ]
    gone = "s3://no-such-bucket/a.jpg"
    (found,) = inspect([gone], root="s3://no-such-bucket", thumbnails=thumbnails, rules=RULES)
    assert found.fault_rule == "picture_missing"
    assert thumbnails.has(digest)
    assert Image.open(io.BytesIO(thumbnails.get(digest))).size == (256, 171)


# ── What a picture is ────────────────────────────────────────────────────────────────────────────────────────────────


def test_faults_of_the_bytes(tmp_path: Path, thumbnails: Thumbnails) -> None:
    good = encoded(drawing())
    cases = {
        b"": "picture_empty",
        b"PK\3\4 an archive": "picture_unreadable",
        good[: len(good) // 2]: "picture_truncated",
        good[:20]: "picture_truncated",
        encoded(drawing(), "PNG")[:-200]: "picture_truncated",
        encoded(drawing(), "WEBP")[:-200]: "picture_truncated",
        bytes(RULES.max_picture_bytes + 1): "picture_too_large",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n": "picture_unreadable",
    }
    for data, rule in cases.items():
        found = look(data, tmp_path, thumbnails)
        assert (found.fault_rule, found.image_hash, found.image_phash) == (rule, None, None)
        assert found.fault_detail


def test_no_byte_of_what_is_no_picture_is_told(tmp_path: Path, thumbnails: Thumbnails) -> None:
    found = look(b"root:x:0:0:root", tmp_path, thumbnails)
    assert (found.fault_rule, found.fault_detail) == ("picture_unreadable", "No picture of a known format.")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_cut_anywhere_it_is_called_cut(kind: str) -> None:
    data = encoded(drawing(128, 96), kind)
    for share in np.linspace(0.05, 0.93, 24):
        with pytest.raises(PictureFault) as fault:
            decode(data[: int(len(data) * share)])
        # Some cuts of an AVIF look like damage to its decoder.
        assert fault.value.rule == "picture_truncated" or kind == "AVIF", share
    assert decode(data).size == (128, 96)


def test_fifty_megapixels_are_refused_by_their_header(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("L", (10_000, 5_000)), "PNG")
    assert len(data) < 100_000

    def decoded(*_: object) -> None:
        pytest.fail("its pixels were decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    with pytest.raises(PictureFault, match=r"10000 × 5000 pixels are more than 40,000,000") as fault:
        decode(data, max_pixels=Validation().max_picture_pixels)
    assert fault.value.rule == "picture_too_large"


def test_a_decompression_bomb_is_too_large() -> None:
    with pytest.raises(PictureFault) as fault:
        decode(encoded(Image.new("1", (20_000, 20_000)), "PNG"), max_pixels=RULES.max_picture_pixels)
    assert fault.value.rule == "picture_too_large"


def near(image: Image.Image, place: tuple[int, int], colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(np.subtract(image.getpixel(place), colour)).max() <= 12)


def test_every_mode_becomes_rgb() -> None:
    red = Image.new("RGB", (32, 32), (200, 30, 40))
    assert near(decode(encoded(red.convert("CMYK"))), (5, 5), (200, 30, 40))
    assert near(decode(encoded(red.quantize(8), "PNG")), (5, 5), (200, 30, 40))
    assert near(decode(encoded(Image.new("L", (32, 32), 90))), (5, 5), (90, 90, 90))
    sixteen = Image.fromarray(np.full((32, 32), 90 * 257, np.uint16))
    assert near(decode(encoded(sixteen, "PNG")), (5, 5), (90, 90, 90))
    assert near(decode(encoded(Image.new("F", (32, 32), 0.5), "TIFF")), (5, 5), (128, 128, 128))
    assert near(decode(encoded(Image.new("1", (32, 32), 1), "PNG")), (5, 5), (255, 255, 255))


def test_what_is_transparent_becomes_white() -> None:
    for kind in ("PNG", "WEBP", "GIF"):
        image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
        image.paste((200, 30, 40, 255), (0, 0, 16, 32))
        got = decode(encoded(image, kind))
        assert near(got, (4, 4), (200, 30, 40)), kind
        assert near(got, (28, 4), (255, 255, 255)), kind


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        got = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100))
        assert near(got, (5, 5), (255, 0, 0)), kind


def test_exif_turns_the_picture_upright() -> None:
    image = Image.new("RGB", (64, 32), "white")
    image.paste("black", (0, 0, 32, 32))
    turned = Image.Exif()
    turned[0x0112] = 6
    got = decode(encoded(image, exif=turned, quality=95))
    assert got.size == (32, 64)
    assert near(got, (16, 8), (0, 0, 0))
    assert near(got, (16, 56), (255, 255, 255))


def test_a_large_jpeg_is_decoded_small() -> None:
    data = encoded(drawing(2_400, 1_600))
    assert decode(data).size == (1_200, 800)
    assert decode(data, side=100).size == (300, 200)


# ── What is kept ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_inspection_in_the_order_of_the_uris(tmp_path: Path, thumbnails: Thumbnails) -> None:
    data = encoded(drawing())
    (tmp_path / "a.jpg").write_bytes(data)
    (tmp_path / "same.jpg").write_bytes(data)
    (tmp_path / "text.jpg").write_bytes(b"text")
    uris = ["a.jpg", None, "text.jpg", "", "same.jpg", "a.jpg", "  "]
    found = inspect(uris, root=str(tmp_path), thumbnails=thumbnails, rules=RULES)
    digest = hashlib.sha256(data).hexdigest()
    good = Inspection(digest, str(imagehash.phash(drawing())))
    assert [one.fault_rule for one in found] == [None, None, "picture_unreadable", None, None, None, None]
    assert found[0].image_hash == digest
    assert imagehash.hex_to_hash(found[0].image_phash) - imagehash.hex_to_hash(good.image_phash) <= 2
    assert found[0] == found[4] == found[5]
    assert found[1] == found[3] == found[6] == Inspection()
    assert inspect([], root=str(tmp_path), thumbnails=thumbnails, rules=RULES) == []


def test_each_uri_is_fetched_once(shop: Shop, thumbnails: Thumbnails) -> None:
    inspect([f"{shop.url}/once.jpg"] * 50, root="", thumbnails=thumbnails, rules=RULES)
    assert shop.asked["/once.jpg"] == 1


@pytest.mark.parametrize("size", [(1_000, 500), (40, 30), (500, 3)])
def test_a_thumbnail(size: tuple[int, int], tmp_path: Path, thumbnails: Thumbnails) -> None:
    found = look(encoded(drawing(*size).convert("RGBA"), "PNG"), tmp_path, thumbnails)
    assert found.image_hash is not None
    path = Path(thumbnails.uri) / found.image_hash[:2] / f"{found.image_hash}.jpg"
    assert path.read_bytes() == thumbnails.get(found.image_hash)
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        assert max(image.size) == min(256, max(size))
    assert not list(Path(thumbnails.uri).rglob("*.partial"))


def test_a_thumbnail_is_written_once(tmp_path: Path, thumbnails: Thumbnails) -> None:
    found = look(encoded(drawing()), tmp_path, thumbnails)
    path = Path(thumbnails.uri) / thumbnails.path(found.image_hash or "")
    before = path.stat().st_mtime_ns
    assert look(encoded(drawing()), tmp_path, thumbnails) == found
    assert path.stat().st_mtime_ns == before


def test_thumbnails_in_a_store_that_is_no_folder() -> None:
    thumbnails = Thumbnails("memory://lake/pictures")
    thumbnails.put("ab" * 32, drawing())
    assert thumbnails.has("ab" * 32)
    assert not thumbnails.has("cd" * 32)
    assert decode(thumbnails.get("ab" * 32)).size == (256, 171)


def test_a_thumbnail_that_is_not_there(thumbnails: Thumbnails) -> None:
    with pytest.raises(TerminalError, match="No copy of picture"):
        thumbnails.get("ab" * 32)
    with pytest.raises(ValueError, match="not a sha256"):
        thumbnails.get("../../../etc/passwd")
