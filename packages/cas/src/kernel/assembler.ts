/**
 * A small assembler for WebAssembly: typed expressions in, the bytes of a module out. It knows what the hashing kernel
 * uses and no more. Source: WebAssembly Core Specification 2.0, chapter 5, "Binary Format"; section numbers below are
 * of that chapter. Used when the kernel is built and by its tests; programs that hash only get the finished bytes.
 */

export type ValueType = 'i32' | 'v128';

/** Code that leaves one value of this type on the stack; `none` leaves nothing. */
export interface Expr<T extends ValueType | 'none'> {
  readonly type: T;
  readonly code: readonly number[];
}

/** A parameter or local variable; used as an expression, its value. */
export interface Local<T extends ValueType> extends Expr<T> {
  readonly index: number;
}

export type I32 = Expr<'i32'>;
export type V128 = Expr<'v128'>;
export type Effect = Expr<'none'>;

/** 5.3.1, 5.3.2. */
const TYPE_CODE: Record<ValueType, number> = { i32: 0x7f, v128: 0x7b };

/** LEB128 of a number from 0 to 2^32 - 1 (5.2.2). */
export function unsigned(value: number): number[] {
  const bytes: number[] = [];
  let rest = value >>> 0;
  do {
    const low = rest & 0x7f;
    rest >>>= 7;
    bytes.push(rest === 0 ? low : low | 0x80);
  } while (rest !== 0);
  return bytes;
}

/** LEB128 of a number from -2^31 to 2^31 - 1 (5.2.2). */
export function signed(value: number): number[] {
  const bytes: number[] = [];
  let rest = value | 0;
  for (;;) {
    const low = rest & 0x7f;
    rest >>= 7;
    // The sign is bit 6 of the last byte.
    if ((rest === 0 && low < 0x40) || (rest === -1 && low >= 0x40)) return [...bytes, low];
    bytes.push(low | 0x80);
  }
}

function vector(items: readonly (readonly number[])[]): number[] {
  return [...unsigned(items.length), ...items.flat()];
}

function text(value: string): number[] {
  const bytes = [...new TextEncoder().encode(value)];
  return [...unsigned(bytes.length), ...bytes];
}

export function expr<T extends ValueType | 'none'>(type: T, ...code: (readonly number[] | number)[]): Expr<T> {
  return { type, code: code.flat() };
}

/** The body of a function while it is written. */
export class FunctionWriter {
  readonly #parameters: number;
  readonly #locals: ValueType[] = [];
  readonly #code: number[] = [];

  constructor(parameters: number) {
    this.#parameters = parameters;
  }

  local<T extends ValueType>(type: T): Local<T> {
    this.#locals.push(type);
    return variable(type, this.#parameters + this.#locals.length - 1);
  }

  locals<T extends ValueType>(type: T, count: number): Local<T>[] {
    return Array.from({ length: count }, () => this.local(type));
  }

  set<T extends ValueType>(target: Local<T>, value: Expr<T>): void {
    this.#code.push(...value.code, 0x21, ...unsigned(target.index));
  }

  run(effect: Effect): void {
    this.#code.push(...effect.code);
  }

  if(condition: I32, then: () => void, otherwise?: () => void): void {
    this.#code.push(...condition.code, 0x04, 0x40);
    then();
    if (otherwise !== undefined) {
      this.#code.push(0x05);
      otherwise();
    }
    this.#code.push(0x0b);
  }

  /** Tested at the top: `loop (if condition body, br loop)`; V8 makes faster code of it than of a test at the bottom. */
  while(condition: I32, body: () => void): void {
    this.#code.push(0x03, 0x40);
    this.if(condition, () => {
      body();
      this.#code.push(0x0c, 1);
    });
    this.#code.push(0x0b);
  }

  return(value?: Expr<ValueType>): void {
    this.#code.push(...(value?.code ?? []), 0x0f);
  }

  /** 5.5.13: locals, code, end; with its length before it. */
  bytes(): number[] {
    const body = [...vector(this.#locals.map((type) => [1, TYPE_CODE[type]])), ...this.#code, 0x0b];
    return [...unsigned(body.length), ...body];
  }
}

function variable<T extends ValueType>(type: T, index: number): Local<T> {
  return { ...expr(type, 0x20, unsigned(index)), index };
}

/** Calls a function that has been defined; as an expression of its result. */
export type Callable<R extends ValueType | 'none'> = (...args: Expr<ValueType>[]) => Expr<R>;

interface Definition {
  readonly name: string;
  readonly parameters: readonly ValueType[];
  readonly result: ValueType | 'none';
  readonly exported: boolean;
  readonly body: number[];
}

/** A module with one imported memory, `env.memory`, and functions. */
export class ModuleWriter {
  readonly #functions: Definition[] = [];
  readonly #minimumPages: number;

  /** @param minimumPages how much memory an instance must be given at least, in pages of 64 KiB */
  constructor(minimumPages: number) {
    this.#minimumPages = minimumPages;
  }

  /** Writes a function of `i32` parameters; functions are called in the order in which they are defined. */
  define<R extends ValueType | 'none'>(
    name: string,
    { parameters, result, exported }: { parameters: number; result: R; exported: boolean },
    write: (f: FunctionWriter, ...parameters: Local<'i32'>[]) => void,
  ): Callable<R> {
    const f = new FunctionWriter(parameters);
    write(f, ...Array.from({ length: parameters }, (_, i) => variable('i32', i)));
    const types = Array.from({ length: parameters }, (): ValueType => 'i32');
    const index = this.#functions.push({ name, parameters: types, result, exported, body: f.bytes() }) - 1;
    return (...args) => {
      if (args.length !== parameters || args.some((arg, i) => arg.type !== types[i])) {
        throw new TypeError(`${name} is called with other parameters than it has`);
      }
      return expr(result, ...args.map((arg) => arg.code), 0x10, unsigned(index));
    };
  }

  /** 5.5.16: magic, version and the sections type, import, function, export and code. */
  bytes(): Uint8Array<ArrayBuffer> {
    const section = (id: number, content: number[]) => [id, ...unsigned(content.length), ...content];
    const codes = (types: readonly (ValueType | 'none')[]) =>
      vector(types.filter((type) => type !== 'none').map((type) => [TYPE_CODE[type]]));
    const functions = this.#functions;
    const exported = functions.flatMap(({ name, exported }, i) =>
      exported ? [[...text(name), 0, ...unsigned(i)]] : [],
    );
    return Uint8Array.from([
      ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
      ...section(
        1,
        vector(functions.map(({ parameters, result }) => [0x60, ...codes(parameters), ...codes([result])])),
      ),
      ...section(2, vector([[...text('env'), ...text('memory'), 2, 0, ...unsigned(this.#minimumPages)]])),
      ...section(3, vector(functions.map((_, i) => unsigned(i)))),
      ...section(7, vector(exported)),
      ...section(10, vector(functions.map(({ body }) => body))),
    ]);
  }
}
