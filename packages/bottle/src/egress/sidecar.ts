import type { FromSidecar, ToSidecar } from '../fence/messages.ts';
import { createResolver } from '../net/resolver.ts';
import { Authority } from './authority.ts';
import { EgressServer } from './egress-server.ts';
import { noCounts, type Gate } from './gate.ts';
import { parseListeners } from './listeners.ts';
import { Recorder } from './recorder.ts';
import { upstreamTrust } from './upstream-trust.ts';

/**
 * The sidecar: one process for one bottle, which holds its listeners and its keys. It is started by the prologue with the open
 * listeners as its only argument, speaks with the supervisor over Node's channel, and ends with it.
 */
function main(): void {
  const send = process.send?.bind(process);
  if (send === undefined) throw new Error('the sidecar is started by decant');
  const say = (message: FromSidecar, done?: () => void) => {
    send(message, undefined, undefined, done === undefined ? undefined : () => done());
  };
  // Without the supervisor nothing is recorded, so nothing may pass.
  process.on('disconnect', () => process.exit(0));
  const listeners = parseListeners(process.argv[2] ?? '');
  const authority = new Authority();
  let running: { readonly gate: Gate; readonly server: EgressServer } | undefined;

  const configure = async ({ policy, resolvers, upstreamCaPem, limits }: Extract<ToSidecar, { type: 'configure' }>) => {
    let trust: ReturnType<typeof upstreamTrust> | undefined;
    const gate: Gate = {
      policy,
      resolver: createResolver(resolvers === undefined ? {} : { servers: resolvers }),
      authority,
      limits,
      recorder: new Recorder(
        { send: (events, done) => say({ type: 'audit', events: [...events] }, done) },
        limits.auditBacklog,
      ),
      counters: noCounts(),
      upstreamTrust: () => (trust ??= upstreamTrust(upstreamCaPem)),
    };
    const server = new EgressServer(gate, listeners);
    await server.start();
    running = { gate, server };
    say({ type: 'configured' });
    // Some 100 certificates take tens of milliseconds to read: not before the launch goes on, and not in the first request.
    setImmediate(gate.upstreamTrust);
  };

  process.on('message', (message: ToSidecar) => {
    void receive(message).catch((error: unknown) => {
      console.error(error instanceof Error ? error.message : 'the sidecar failed');
      process.exit(1);
    });
  });

  async function receive(message: ToSidecar): Promise<void> {
    if (message.type === 'configure') {
      await configure(message);
    } else if (message.type === 'reload' && running !== undefined) {
      running.gate.policy = message.policy;
      say({ type: 'reloaded' });
    } else if (message.type === 'stats' && running !== undefined) {
      running.server.countRefused();
      say({ type: 'stats', stats: running.gate.counters });
    } else if (message.type === 'close') {
      running?.server.countRefused();
      running?.server.close();
      running?.gate.recorder.flush();
      say({ type: 'closed' }, () => process.exit(0));
    }
  }

  say({ type: 'listening', certificatePem: authority.certificatePem });
}

main();
