/**
 * Our objects in the hands of frameworks.
 *
 * Vue, Alpine, Valtio and others wrap what an application keeps in its state into proxies, and call methods on these. A
 * proxy has no private fields, so each method would throw a TypeError.
 *
 * Rules for every class whose objects an application gets:
 *
 * - It has a `Symbol.toStringTag`. Vue and Alpine wrap plain objects, which have none, and leave ours alone. So an object
 *   stays `===` to itself there, and nothing of its inside is watched.
 * - Its methods and getters work with any `this`. So it does not matter who wraps, copies or freezes the object, nor
 *   whether a method is handed around by itself.
 * - What changes is in private fields. Nobody else can change it, and a frozen object goes on.
 */

/**
 * Bind the methods and getters of a new object to it. They become its own properties; those that a subclass overrides
 * are bound as overridden.
 *
 * @param {object} object
 * @param {string} tag The name of its class, as minifiers do not keep it.
 */
export function bind(object, tag) {
  /** @type {PropertyDescriptorMap} */
  const own = Object.create(null);
  own[Symbol.toStringTag] = { value: tag };
  let prototype = object;
  while ((prototype = Object.getPrototypeOf(prototype)) !== Object.prototype) {
    const { constructor, ...members } = Object.getOwnPropertyDescriptors(prototype);
    for (const [name, { get, value }] of Object.entries(members)) {
      own[name] ??= {
        configurable: true, // a subclass may have a field of this name
        ...(get ? { get: get.bind(object), enumerable: true } : { value: value.bind(object), writable: true }),
      };
    }
  }
  Object.defineProperties(object, own);
}

/**
 * A function that gives the object which has it, for objects of which there are too many to bind each. Frameworks wrap
 * objects, not functions.
 */
export const SELF = Symbol('self');
