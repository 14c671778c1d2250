import { ConnectionFault, writeTo, type StreamReader } from './stream-reader.ts';

export interface SpliceEnd {
  readonly sentBytes: number;
  readonly receivedBytes: number;
}

/**
 * Passes bytes both ways until both sides have ended, one broke, or nothing moved either way for too long. The end of one side is
 * passed on, so that the other may still finish. Never rejects.
 */
export async function splice(
  client: StreamReader,
  upstream: StreamReader,
  idleTimeMs: number,
  onBytes: (sent: number, received: number) => void,
): Promise<SpliceEnd> {
  const totals = { sent: 0, received: 0 };
  let lastMoved = Date.now();
  const pump = async (from: StreamReader, to: StreamReader, count: (bytes: number) => void) => {
    for (;;) {
      let piece: Buffer | undefined;
      try {
        piece = await from.read(idleTimeMs);
      } catch (error) {
        // One direction may rest as long as the other moves.
        const rests = error instanceof ConnectionFault && error.kind === 'slow' && Date.now() - lastMoved < idleTimeMs;
        if (rests) continue;
        throw error;
      }
      if (piece === undefined) break;
      lastMoved = Date.now();
      count(piece.length);
      await writeTo(to.stream, piece, idleTimeMs);
      lastMoved = Date.now();
    }
    to.stream.end();
  };
  const destroy = () => {
    client.stream.destroy();
    upstream.stream.destroy();
  };
  const guarded = (work: Promise<void>) => work.catch(destroy);
  await Promise.all([
    guarded(
      pump(client, upstream, (bytes) => {
        totals.sent += bytes;
        onBytes(bytes, 0);
      }),
    ),
    guarded(
      pump(upstream, client, (bytes) => {
        totals.received += bytes;
        onBytes(0, bytes);
      }),
    ),
  ]);
  return { sentBytes: totals.sent, receivedBytes: totals.received };
}
