import type { RuneTest } from './go-regexp-class.ts';
import type { RegexpNode } from './go-regexp.ts';
import { RegexpFault } from './rune-reader.ts';

/** A step of the machine; `next` and `other` are indexes of steps. */
type Step =
  | { readonly kind: 'rune'; readonly test: RuneTest; next: number }
  | { readonly kind: 'assert'; readonly what: 'begin' | 'end' | 'word' | 'not-word'; next: number }
  | { readonly kind: 'split'; next: number; other: number }
  | { readonly kind: 'found' };

/** Most steps of one expression: repetitions are written out, and a hostile one must not take all memory. */
const MOST_STEPS = 50_000;

/**
 * Whether an expression is found in a text, as a set of states moved over it (Thompson's construction, CACM 11(6),
 * 1968): time grows with the text times the expression, whatever either holds.
 */
export class RegexpProgram {
  readonly #steps: Step[] = [];
  readonly #start: number;
  /** The round in which a step was last added to the set of states. */
  readonly #addedIn: Uint32Array;
  #round = 0;

  /** @throws RegexpFault when the expression is too large. */
  constructor(node: RegexpNode) {
    const found = this.#add({ kind: 'found' });
    this.#start = this.#compile(node, found);
    this.#addedIn = new Uint32Array(this.#steps.length);
  }

  test(text: readonly number[]): boolean {
    let states: number[] = [];
    for (let at = 0; ; at++) {
      // A set that begins here joins those that began earlier: the expression may be found anywhere.
      if (this.#round >= 0xffff_fffe) {
        this.#addedIn.fill(0);
        this.#round = 0;
      }
      this.#round += 1;
      const reached: number[] = [];
      for (const state of states) if (this.#follow(state, text, at, reached)) return true;
      if (this.#follow(this.#start, text, at, reached)) return true;
      if (at >= text.length) return false;
      states = [];
      for (const state of reached) {
        const step = this.#steps[state]!;
        if (step.kind === 'rune' && step.test(text[at]!)) states.push(step.next);
      }
    }
  }

  /** Adds what is reached from a step without reading; true when that is the end of the expression. */
  #follow(first: number, text: readonly number[], at: number, reached: number[]): boolean {
    const open = [first];
    for (let index = open.pop(); index !== undefined; index = open.pop()) {
      if (this.#addedIn[index] === this.#round) continue;
      this.#addedIn[index] = this.#round;
      const step = this.#steps[index]!;
      if (step.kind === 'found') return true;
      if (step.kind === 'rune') reached.push(index);
      else if (step.kind === 'split') open.push(step.other, step.next);
      else if (holds(step.what, text, at)) open.push(step.next);
    }
    return false;
  }

  /** Writes the steps of a node backwards from the step that follows it; returns where it begins. */
  #compile(node: RegexpNode, next: number): number {
    switch (node.kind) {
      case 'rune':
        return this.#add({ kind: 'rune', test: node.test, next });
      case 'assert':
        return this.#add({ kind: 'assert', what: node.what, next });
      case 'sequence':
        return node.nodes.reduceRight((behind, child) => this.#compile(child, behind), next);
      case 'choice':
        return node.nodes
          .map((child) => this.#compile(child, next))
          .reduceRight((other, start) => this.#add({ kind: 'split', next: start, other }));
      case 'repeat':
        break;
    }
    return this.#compileRepeat(node, next);
  }

  #compileRepeat(node: RegexpNode & { kind: 'repeat' }, next: number): number {
    let start = next;
    if (node.max === undefined) {
      const split: Step = { kind: 'split', next, other: next };
      start = this.#add(split);
      split.next = this.#compile(node.node, start);
    } else {
      for (let count = node.min; count < node.max; count++) {
        start = this.#add({ kind: 'split', next: this.#compile(node.node, start), other: next });
      }
    }
    for (let count = 0; count < node.min; count++) start = this.#compile(node.node, start);
    return start;
  }

  #add(step: Step): number {
    if (this.#steps.length >= MOST_STEPS) throw new RegexpFault('it is too large');
    return this.#steps.push(step) - 1;
  }
}

function holds(what: 'begin' | 'end' | 'word' | 'not-word', text: readonly number[], at: number): boolean {
  if (what === 'begin') return at === 0;
  if (what === 'end') return at === text.length;
  return (isWord(text[at - 1]) !== isWord(text[at])) === (what === 'word');
}

function isWord(rune: number | undefined): boolean {
  return rune !== undefined && rune < 0x80 && /\w/.test(String.fromCharCode(rune));
}
