import { formatBytes } from '@decant/core';

import type { Mount } from '../backends/backend.ts';
import type { Route, RouteMatch } from '../net/policy.ts';
import type { BottlePlan } from './plan.ts';

const SHOWN_PROMPT = 60;

/** A plan for people: every route, mount, limit and variable, and what is weaker. Ends without a line feed. */
export function formatPlan(plan: BottlePlan): string {
  const { egress, agent, limits } = plan;
  const lines: string[] = [];
  const field = (name: string, text: string) => lines.push(`${name.padEnd(12)}${text}`);
  const list = (name: string, items: readonly string[], none: string) => {
    field(name, items[0] ?? none);
    for (const item of items.slice(1)) lines.push(`${' '.repeat(12)}${item}`);
  };
  field('bottle', plan.slug ?? plan.slugBase);
  field('image', word(plan.image) + (plan.artifact === undefined ? '' : ` (${plan.artifact.id})`));
  field('backend', plan.backend);
  if (plan.obstacles.length > 0) list('cannot run', plan.obstacles.map(shown), '');
  if (plan.weaknesses.length > 0) list('weaker', plan.weaknesses.map(shown), '');
  list(
    'may reach',
    egress.policy.routes.flatMap(routeLines),
    egress.sealed === true ? 'nothing: sealed, so that nothing is recorded either' : 'nothing',
  );
  if (egress.policy.deny.length > 0) list('never', egress.policy.deny.map(word), '');
  if (egress.policy.routes.length > 0) {
    field('names by', egress.resolvers.length === 0 ? "this machine's resolvers" : egress.resolvers.join(', '));
    if (egress.upstreamCaFile !== undefined) field('trusts also', word(egress.upstreamCaFile));
  }
  list('mounts', plan.mounts.map(mountLine), 'none');
  field(
    'limits',
    [
      `${limits.cpus} processors`,
      `${formatBytes(limits.memoryBytes)} memory`,
      `${limits.processes} processes`,
      `${formatBytes(limits.diskBytes)} written`,
      `ends after ${wallTime(limits.wallTimeMs)}`,
    ].join(', '),
  );
  field('agent', agent.command.length === 0 ? "the image's command" : agent.command.map(word).join(' '));
  if (agent.prompt !== undefined) {
    const how = { argument: 'as its last argument', stdin: 'on standard input', file: 'in a file' }[agent.promptMode];
    const start = agent.prompt.length > SHOWN_PROMPT ? `${agent.prompt.slice(0, SHOWN_PROMPT)}…` : agent.prompt;
    field('prompt', `${shown(JSON.stringify(start))} ${how}`);
  }
  field('user', agent.user === undefined ? "the image's" : word(agent.user));
  if (agent.workingDir !== undefined) field('works in', word(agent.workingDir));
  list('variables', agent.environmentNames, 'none of its own');
  if (plan.certificate !== undefined) field('authority', `${plan.certificate.fingerprint} (SHA-256)`);
  return lines.join('\n');
}

function wallTime(milliseconds: number): string {
  const seconds = Math.round(milliseconds / 1000);
  if (seconds % 3600 === 0) return `${seconds / 3600} h`;
  return seconds % 60 === 0 ? `${seconds / 60} min` : `${seconds} s`;
}

function routeLines({ id, hosts, ports, protocol, matches, privateRanges }: Route): string[] {
  const how = {
    http: 'HTTP',
    tls: 'TLS that is not opened: what is sent is not seen',
    tcp: 'any protocol: what is sent is not seen',
  }[protocol];
  const lines = [`${hosts.map(word).join(', ')} on ${ports.join(', ')}, ${how} (route ${word(id)})`];
  for (const match of matches) lines.push(`  only ${matchText(match)}`);
  if (privateRanges.length > 0) lines.push(`  also at private addresses of ${privateRanges.join(', ')}`);
  return lines;
}

function matchText({ methods, path, headers }: RouteMatch): string {
  const parts = [methods === undefined ? 'any method' : methods.join(', ')];
  if (path !== undefined) parts.push(path.type === 'exact' ? word(path.value) : `${word(path.value)} and below`);
  for (const { name, value } of headers ?? []) parts.push(`with ${name}: ${word(value)}`);
  return parts.join(' ');
}

function mountLine(mount: Mount): string {
  if (mount.type === 'tmpfs') return `${word(mount.target)}: ${formatBytes(mount.sizeBytes)} of memory`;
  const how = {
    'read-only': 'read-only',
    'read-write': "written to: changes the host's files",
    overlay: 'changes are discarded',
  }[mount.type];
  return `${word(mount.target)} from ${word(mount.source)}, ${how}`;
}

/** As it would be written in a shell; quoted as soon as it holds anything that could be read as something else. */
function word(text: string): string {
  return /^[A-Za-z0-9_@%+=:,./*[\]-]+$/.test(text) ? text : shown(JSON.stringify(text));
}

/** Only printable ASCII: no look-alike, no change of direction, no terminal sequence. */
function shown(quoted: string): string {
  return quoted.replace(/[^ -~]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
