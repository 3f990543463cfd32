"""A camera in the network, as far as RTSP over TCP goes: one stream of MPEG-2 video."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 32\r\na=rtpmap:32 MPV/90000\r\na=control:track0\r\n"
)
_ANSWERS = {
    "OPTIONS": "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n",
    "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(_SDP)}\r\n",
    "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n",
    "PLAY": "Session: 1\r\n",
}


def make_packets(frames: int, fps: int) -> list[bytes]:
    """RTP packets of grey frames, as FFmpeg sends them over UDP."""
    packets = []
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as media,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control,
    ):
        media.bind(("127.0.0.1", 0))
        media.setblocking(False)
        port = media.getsockname()[1]
        with contextlib.suppress(OSError):
            control.bind(("127.0.0.1", port + 1))
        with av.open(f"rtp://127.0.0.1:{port}", "w", format="rtp") as container:
            stream = container.add_stream("mpeg2video", rate=fps)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for number in range(frames + 1):
                picture = np.full((48, 64, 3), 40 + 5 * (number % 40), np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, fps)
                container.mux(stream.encode(frame if number < frames else None))
                with contextlib.suppress(BlockingIOError):
                    while True:
                        packets.append(media.recv(65536))
    return packets


@contextlib.contextmanager
def serve_rtsp(packets: list[bytes], times: int = 1) -> Iterator[str]:
    """Sends the packets to the first `times` clients that play the URL, says good-bye, and is gone then."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_answer, args=(server, packets, times), daemon=True)
        thread.start()
        yield f"rtsp://127.0.0.1:{server.getsockname()[1]}/camera"
        thread.join(10)


def _answer(server: socket.socket, packets: list[bytes], times: int) -> None:
    for _ in range(times):
        _play(server, packets)
    server.close()


def _play(server: socket.socket, packets: list[bytes]) -> None:
    connection, _ = server.accept()
    with connection, connection.makefile("rb") as lines:
        while True:
            request = lines.readline().decode()
            headers = {}
            while line := lines.readline().decode().strip():
                name, value = line.split(":", 1)
                headers[name.lower()] = value.strip()
            method = request.split()[0]
            answer = f"RTSP/1.0 200 OK\r\nCSeq: {headers['cseq']}\r\n{_ANSWERS[method]}\r\n"
            connection.sendall((answer + (_SDP if method == "DESCRIBE" else "")).encode())
            if method == "PLAY":
                for packet in packets:
                    connection.sendall(b"$\0" + len(packet).to_bytes(2, "big") + packet)
                # RTCP's "bye", with the sender that the packets name.
                bye = bytes((0x81, 203, 0, 1)) + packets[0][8:12]
                connection.sendall(b"$\1" + len(bye).to_bytes(2, "big") + bye)
                return
