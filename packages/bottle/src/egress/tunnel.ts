import type { Judgement } from '../net/judge.ts';
import { eventOf, recordDenied, type Client } from './client.ts';
import { splice } from './splice.ts';
import { dial } from './upstream.ts';

/** Passes a connection on unopened, to the address that was judged. It ends with both sides closed. */
export async function tunnel(client: Client, judged: Extract<Judgement, { readonly allow: true }>): Promise<void> {
  const { gate } = client;
  const { recorder, counters, limits } = gate;
  const started = performance.now();
  const upstream = await dial(gate, {
    host: judged.host,
    port: judged.port,
    addresses: judged.addresses,
    preferred: client.destination,
    secure: false,
  });
  if ('allow' in upstream) {
    recordDenied(client, upstream);
    client.socket.resetAndDestroy();
    return;
  }
  const facts = { ...eventOf(client), host: judged.host, address: upstream.address, rule: judged.route.id } as const;
  recorder.record({ ...facts, type: 'connection', decision: 'allow' });
  try {
    const { sentBytes, receivedBytes } = await splice(
      client.reader,
      upstream.reader,
      limits.idleTimeMs,
      (sent, received) => {
        counters.sentBytes += sent;
        counters.receivedBytes += received;
      },
    );
    const durationMs = Math.round(performance.now() - started);
    recorder.record({ ...facts, type: 'end', decision: 'info', sentBytes, receivedBytes, durationMs });
  } finally {
    upstream.stream.destroy();
    client.socket.destroy();
  }
}
