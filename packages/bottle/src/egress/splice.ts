import { ConnectionFault, isDeaf, writeAll, type StreamReader } from './stream-reader.ts';

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
      let pieces: readonly Buffer[] | undefined;
      try {
        pieces = await from.readAll(idleTimeMs);
      } catch (error) {
        // One direction may rest as long as the other moves.
        const rests = error instanceof ConnectionFault && error.kind === 'slow' && Date.now() - lastMoved < idleTimeMs;
        if (rests) continue;
        throw error;
      }
      if (pieces === undefined) break;
      lastMoved = Date.now();
      count(pieces.reduce((sum, piece) => sum + piece.length, 0));
      // Who takes no more may have said why: that still passes the other way.
      if (isDeaf(to.stream)) return;
      await writeAll(to.stream, pieces, idleTimeMs);
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
