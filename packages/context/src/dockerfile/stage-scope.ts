/** ARG and ENV of a stage, over those that the stage below it had at its end. Reading costs one step per stage below. */
export class StageScope {
  readonly #own = new Map<string, string | undefined>();
  readonly #below: StageScope | undefined;

  constructor(below?: StageScope) {
    this.#below = below;
  }

  get(name: string): string | undefined {
    return this.#own.has(name) ? this.#own.get(name) : this.#below?.get(name);
  }

  set(name: string, value: string | undefined): void {
    this.#own.set(name, value);
  }
}
