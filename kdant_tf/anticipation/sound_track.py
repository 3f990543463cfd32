"""The sound of a video, taken over into another one."""

import av


class SoundTrack:
    """Copies the packets of one stream of sound; where the new file takes no such codec, encodes it anew.

    Args:
        container: open for writing, nothing written yet.
        source: the stream of sound.
    """

    def __init__(self, container: av.container.OutputContainer, source: av.AudioStream) -> None:
        self._container = container
        self._source = source
        self._copied = source.codec_context.codec.canonical_name in container.supported_codecs
        self._last: int | None = None
        self._stream = (
            container.add_stream_from_template(source)
            if self._copied
            else container.add_stream("aac", rate=source.rate)
        )

    def write(self, packet: av.Packet, origin_s: float) -> None:
        """Takes the next packet; `origin_s` is the time stamp that becomes 0, in seconds."""
        if packet.dts is None or packet.pts is None or packet.time_base is None:
            return
        shift = round(origin_s / packet.time_base)
        if self._copied:
            packet.pts -= shift
            packet.dts -= shift
            # A stream that begins anew would go back in time, which no file can.
            if self._last is None or packet.dts > self._last:
                self._last = packet.dts
                packet.stream = self._stream
                self._container.mux(packet)
            return
        for frame in self._source.decode(packet):
            if frame.pts is not None and frame.time_base:
                frame.pts -= round(origin_s / frame.time_base)
            self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Writes what the encoder still holds."""
        if not self._copied:
            self._container.mux(self._stream.encode(None))
