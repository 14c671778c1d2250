/** ARG and ENV of a stage, over those that the stage below it had at its end. Reading costs one step per stage below. */
export class StageScope {
  readonly #own = new Map<string, string | undefined>();
  readonly #below: StageScope | undefined;

  constructor(below?: StageScope) {
    this.#below = below;
  }

  get(name: string): string | undefined {
    for (let scope: StageScope | undefined = this; scope !== undefined; scope = scope.#below) {
      if (scope.#own.has(name)) return scope.#own.get(name);
    }
    return undefined;
  }

  set(name: string, value: string | undefined): void {
    this.#own.set(name, value);
  }
}
