import { closeSync, openSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { openScratchDirectory } from '@decant/core/node';
import { describe, expect, test } from 'vitest';

import type { AuditEvent } from '../audit/audit-event.ts';
import { EgressServer } from './egress-server.ts';
import { noCounts, type Gate } from './gate.ts';
import { Recorder } from './recorder.ts';

describe('EgressServer', () => {
  test('what the namespace refused is counted and recorded once, as it grows', async () => {
    await using folder = await openScratchDirectory(tmpdir());
    const at = { snmp: join(folder.path, 'snmp'), snmp6: join(folder.path, 'snmp6') };
    const say = (attempts: number, datagrams: number, datagrams6: number) => {
      const tcp = `Tcp: RtoMin AttemptFails EstabResets\nTcp: 200 ${attempts} 77\n`;
      writeFileSync(at.snmp, `${tcp}Udp: InDatagrams NoPorts\nUdp: 99 ${datagrams}\n`);
      writeFileSync(at.snmp6, `Udp6InDatagrams\t55\nUdp6NoPorts  \t${datagrams6}\nUdp6InErrors\t3\n`);
    };
    say(0, 0, 0);
    const listeners = (['snmp', 'snmp6'] as const).map((kind) => ({ kind, port: 0, fd: openSync(at[kind], 'r') }));
    const events: AuditEvent[] = [];
    const recorder = new Recorder({ send: (batch, done) => (events.push(...batch), done()) }, 100);
    const counters = noCounts();
    // Nothing else of it is asked for here.
    const gate = { counters, recorder } as Gate;
    const server = new EgressServer(gate, listeners);
    const news = () => {
      server.countRefused();
      recorder.flush();
      return events.splice(0).map(({ type, decision, rule, count }) => ({ type, decision, rule, count }));
    };
    const closed = (count: number) => ({ type: 'namespace', decision: 'deny', rule: 'closed-port', count });
    expect(news()).toEqual([]);
    say(3, 0, 0);
    expect(news()).toEqual([closed(3)]);
    expect(news()).toEqual([]);
    say(5, 1, 4);
    expect(news()).toEqual([closed(2), closed(5)]);
    expect(counters).toMatchObject({ refusedConnections: 5, refusedDatagrams: 5 });
    for (const { fd } of listeners) closeSync(fd);
  });
});
