import { createSocket, type Socket } from 'node:dgram';
import { Resolver as DnsResolver } from 'node:dns/promises';

import { decode, encode, type Answer } from 'dns-packet';
import { afterEach, describe, expect, it, vi } from 'vitest';

import { judge } from './judge.ts';
import type { EgressPolicy } from './policy.ts';
import { createResolver, type Resolver, type ResolverOptions } from './resolver.ts';

/** What a name is answered with: records, or silence. */
type Zone = Record<string, (type: string) => readonly Answer[] | 'nothing' | 'silence'>;

const open: { close(): void }[] = [];
afterEach(() => {
  for (const item of open.splice(0)) item.close();
});

/** A DNS server on loopback that counts what it is asked. */
async function upstream(zone: Zone): Promise<{ readonly server: string; readonly asked: string[] }> {
  const socket: Socket = createSocket('udp4');
  const asked: string[] = [];
  const sent = new Map<string, Buffer>();
  socket.on('message', (message, peer) => {
    // On a busy machine the same question may be sent again: that is one question.
    const again = sent.get(message.toString('latin1'));
    if (again !== undefined) {
      socket.send(again, peer.port, peer.address);
      return;
    }
    const { id, questions } = decode(message);
    const { name, type } = questions![0]!;
    asked.push(`${name} ${type}`);
    const answers = zone[name]?.(type) ?? 'nothing';
    if (answers === 'silence') return;
    const nothing = answers === 'nothing';
    const reply = encode({
      type: 'response',
      id: id!,
      flags: 0x8180 | (nothing ? 3 : 0),
      questions: questions!,
      answers: nothing ? [] : [...answers],
    });
    sent.set(message.toString('latin1'), reply);
    socket.send(reply, peer.port, peer.address);
  });
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve));
  open.push(socket);
  return { server: `127.0.0.1:${socket.address().port}`, asked };
}

const a = (name: string, data: string, ttl = 300): Answer => ({ type: 'A', name, data, ttl, class: 'IN' });
const onlyA =
  (...answers: readonly Answer[]) =>
  (type: string) =>
    type === 'A' ? answers : [];
const addresses = (list: readonly string[]) => ({ type: 'addresses', addresses: list });

async function resolverFor(zone: Zone, options: ResolverOptions = {}) {
  const { server, asked } = await upstream(zone);
  const resolver = createResolver({ servers: [server], ...options });
  open.push({ close: () => void resolver[Symbol.asyncDispose]() });
  return { resolver, asked };
}

describe('the resolver', () => {
  it('asks once, and keeps the answer for its time', async () => {
    let now = 1000;
    const { resolver, asked } = await resolverFor(
      { 'a.test': onlyA(a('a.test', '203.0.113.1', 100)) },
      { now: () => now },
    );
    expect(resolver.addressesOf('a.test')).toBeUndefined();
    const both = await Promise.all([resolver.resolve('a.test'), resolver.resolve('a.test')]);
    expect(both).toEqual([addresses(['203.0.113.1']), addresses(['203.0.113.1'])]);
    expect(asked.toSorted()).toEqual(['a.test A', 'a.test AAAA']);
    now += 99_000;
    expect(resolver.addressesOf('a.test')).toEqual(['203.0.113.1']);
    now += 2000;
    expect(resolver.addressesOf('a.test')).toBeUndefined();
    // A program may still hold on to the address.
    expect(resolver.namesOf('203.0.113.1')).toEqual(['a.test']);
  });

  it('takes a name that changes its address with every question for what it was first', async () => {
    let now = 0;
    const list = ['203.0.113.1', '127.0.0.1'];
    const { resolver } = await resolverFor(
      { 'r.test': (type) => (type === 'A' ? [a('r.test', list.shift() ?? '127.0.0.1', 0)] : []) },
      { now: () => now },
    );
    const policy: EgressPolicy = {
      deny: [],
      routes: [{ id: 'r', hosts: ['r.test'], ports: [443], protocol: 'http', matches: [], privateRanges: [] }],
    };
    const ask = () => judge(policy, { transport: 'connect', authority: 'r.test', port: 443 }, resolver);
    expect(await ask()).toMatchObject({ allow: true, addresses: ['203.0.113.1'] });
    now += 59_000;
    expect(await ask()).toMatchObject({ allow: true, addresses: ['203.0.113.1'] });
    now += 2000;
    expect(await ask()).toMatchObject({ allow: false, rule: 'special-address' });
  });

  it('gives all addresses of a chain, so that one that is denied is seen', async () => {
    const { resolver } = await resolverFor({
      'c.test': () => [
        { type: 'CNAME', name: 'c.test', data: 'internal.test', ttl: 9 },
        a('internal.test', '10.0.0.1'),
      ],
      'm.test': (type) =>
        type === 'A'
          ? [a('m.test', '203.0.113.1')]
          : [{ type: 'AAAA', name: 'm.test', data: '::ffff:127.0.0.1', ttl: 9 }],
    });
    expect(await resolver.resolve('c.test')).toEqual(addresses(['10.0.0.1']));
    expect(await resolver.resolve('m.test')).toEqual(addresses(['203.0.113.1', '127.0.0.1']));
  });

  it('looks nothing up that no route allows', async () => {
    const { resolver, asked } = await resolverFor({});
    const policy: EgressPolicy = {
      deny: ['d.a.test'],
      routes: [{ id: 'r', hosts: ['*.a.test'], ports: [443], protocol: 'http', matches: [], privateRanges: [] }],
    };
    for (const host of [
      'evil.test',
      'a.test',
      'd.a.test',
      '127.0.0.1',
      'x_y.a.test',
      'mzxw6ytboi4dqnzygm2tsmjr.a.test',
    ]) {
      expect(await judge(policy, { transport: 'dns', port: 53, host }, resolver)).toMatchObject({ allow: false });
    }
    expect(asked).toEqual([]);
    expect(
      await judge(policy, { transport: 'dns', port: 53, host: 'x.a.test', questionType: 'TXT' }, resolver),
    ).toMatchObject({ allow: true, addresses: [] });
    expect(asked).toEqual([]);
    expect(
      await judge(policy, { transport: 'dns', port: 53, host: 'x.a.test', questionType: 'A' }, resolver),
    ).toMatchObject({ rule: 'unresolved' });
    expect(asked).toHaveLength(2);
  });

  it('ends the stream of names below a wildcard', async () => {
    const { resolver, asked } = await resolverFor({}, { budget: { namesBelow: 20, windowMs: 1000 } });
    const results = await Promise.all(
      Array.from({ length: 200 }, (_, i) => resolver.resolve(`x${i}.a.test`, { wildcard: 'a.test' })),
    );
    expect(results.filter((result) => result.type === 'refused' && result.rule === 'dns-budget')).toHaveLength(180);
    expect(asked.length).toBeLessThanOrEqual(40);
    // Another wildcard has its own.
    expect(await resolver.resolve('x.b.test', { wildcard: 'b.test' })).toEqual(addresses([]));
  });

  it('bounds names, bits and time, and begins anew after its window', async () => {
    let now = 0;
    const { resolver } = await resolverFor(
      {},
      { budget: { lookups: 3, bitsBelow: 30, windowMs: 1000 }, now: () => now },
    );
    const rule = async (name: string, wildcard?: string) => {
      const result = await resolver.resolve(name, { wildcard });
      return result.type === 'refused' ? result.rule : 'looked up';
    };
    expect(await rule('abcdefgh.a.test', 'a.test')).toBe('looked up');
    expect(await rule('ijklmnop.a.test', 'a.test')).toBe('dns-budget');
    expect(await rule('b.test')).toBe('looked up');
    expect(await rule('c.test')).toBe('looked up');
    expect(await rule('d.test')).toBe('dns-budget');
    now = 1001;
    expect(await rule('d.test')).toBe('looked up');
  });

  it('waits no longer than its bound, and asks again soon', async () => {
    let now = 0;
    const { resolver } = await resolverFor({ 's.test': () => 'silence' }, { timeoutMs: 300, now: () => now });
    const started = performance.now();
    expect(await resolver.resolve('s.test')).toEqual(addresses([]));
    expect(performance.now() - started).toBeLessThan(30_000);
    expect(resolver.addressesOf('s.test')).toEqual([]);
    now += 2001;
    expect(resolver.addressesOf('s.test')).toBeUndefined();
  });

  it('ends with its caller and with itself', async () => {
    const { resolver } = await resolverFor({ 's.test': () => 'silence' }, { timeoutMs: 600_000 });
    const waiting = resolver.resolve('s.test', { signal: AbortSignal.timeout(50) });
    await expect(waiting).rejects.toMatchObject({ name: 'TimeoutError' });
    // What is under way is given up, not waited for.
    const cancel = vi.spyOn(DnsResolver.prototype, 'cancel');
    await resolver[Symbol.asyncDispose]();
    expect(cancel).toHaveBeenCalledOnce();
    cancel.mockRestore();
    expect(await resolver.resolve('other.test')).toMatchObject({ type: 'refused', rule: 'unresolved' });
  });

  it('keeps no answer for longer than its bound, and one that says there is nothing as long as any', async () => {
    let now = 0;
    const { resolver } = await resolverFor(
      { 'long.test': onlyA(a('long.test', '203.0.113.1', 1_000_000)) },
      { now: () => now },
    );
    await resolver.resolve('long.test');
    await resolver.resolve('nothing.test');
    now = 59_999;
    expect(resolver.addressesOf('nothing.test')).toEqual([]);
    now = 60_000;
    expect(resolver.addressesOf('nothing.test')).toBeUndefined();
    now = 3_599_999;
    expect(resolver.addressesOf('long.test')).toEqual(['203.0.113.1']);
    now = 3_600_000;
    expect(resolver.addressesOf('long.test')).toBeUndefined();
  });

  it('has so many lookups under way and so many waiting, and refuses more', async () => {
    const { resolver } = await resolverFor({ 's.test': () => 'silence' }, { concurrency: 1, queue: 2 });
    const waiting = [resolver.resolve('s.test'), resolver.resolve('a.test')];
    expect(await resolver.resolve('b.test')).toMatchObject({ type: 'refused', rule: 'unresolved' });
    expect(resolver.lookups).toBe(1);
    await resolver[Symbol.asyncDispose]();
    await Promise.all(waiting);
  });

  it('says why a name was not looked up', async () => {
    const { resolver } = await resolverFor({}, { budget: { lookups: 0 } });
    const policy: EgressPolicy = {
      deny: [],
      routes: [{ id: 'r', hosts: ['r.test'], ports: [443], protocol: 'http', matches: [], privateRanges: [] }],
    };
    expect(await judge(policy, { transport: 'connect', authority: 'r.test', port: 443 }, resolver)).toMatchObject({
      allow: false,
      rule: 'dns-budget',
    });
  });

  it('refuses a server that is none at once', () => {
    expect((): Resolver => createResolver({ servers: ['nowhere'] })).toThrow();
  });

  it('takes an answer of too many addresses for none', async () => {
    const { resolver } = await resolverFor({
      'l.test': onlyA(...Array.from({ length: 70 }, (_, i) => a('l.test', `203.0.113.${i}`))),
    });
    expect(await resolver.resolve('l.test')).toEqual(addresses([]));
  });
});
