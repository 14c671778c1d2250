import { readSync } from 'node:fs';

export interface RefusedCounts {
  /** Connection attempts that were answered by a reset. */
  readonly connections: number;
  /** Datagrams to ports that nothing listens on. */
  readonly datagrams: number;
}

/**
 * What the namespace itself has refused so far, by its own counters (proc_pid_net(5), RFC 4022 and 4113): the open files go on telling of
 * the namespace they were opened in. Every attempt counts on the side of the client, which is in the same namespace.
 * Read at once: of two readings under way the older one might come last, and what lies between them would be counted again.
 */
export function refusedCounts(snmpFd: number | undefined, snmp6Fd: number | undefined): RefusedCounts {
  const snmp = textOf(snmpFd);
  const snmp6 = textOf(snmp6Fd);
  return {
    connections: tableValue(snmp, 'Tcp', 'AttemptFails'),
    datagrams: tableValue(snmp, 'Udp', 'NoPorts') + Number(/^Udp6NoPorts\s+([0-9]+)$/m.exec(snmp6)?.[1] ?? 0),
  };
}

function textOf(fd: number | undefined): string {
  if (fd === undefined) return '';
  const buffer = Buffer.alloc(16 * 1024);
  return buffer.toString('latin1', 0, readSync(fd, buffer, 0, buffer.length, 0));
}

/** A value of /proc/net/snmp: a line of names and a line of numbers with the same beginning. */
function tableValue(text: string, table: string, name: string): number {
  const [names = '', values = ''] = text.split('\n').filter((line) => line.startsWith(`${table}: `));
  const at = names.split(' ').indexOf(name);
  return at < 0 ? 0 : Number(values.split(' ')[at] ?? 0);
}
