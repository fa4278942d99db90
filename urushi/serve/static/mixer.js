// What mends a picture in place of what was seen: adapters, each with its strength.

import { told } from "./api.js";
import { slide } from "./words.js";

export class Mixer {
  constructor(place, onChange) {
    this.place = place;
    this.onChange = onChange;
    this.rows = new Map();
  }

  async load() {
    for (const adapter of await told("/v1/adapters")) this.add(adapter, 0, true);
  }

  add(adapter, strength, quietly = false) {
    if (!this.rows.has(adapter.id)) {
      const same = [...this.rows.values()].filter(({ name }) => name === adapter.name).length;
      const row = slide(same ? `${adapter.name} (${same + 1})` : adapter.name, 0, (value) => {
        this.rows.get(adapter.id).strength = value;
        this.tell();
      });
      this.rows.set(adapter.id, { name: adapter.name, strength: 0, row });
      this.place.append(row);
    }
    const found = this.rows.get(adapter.id);
    found.strength = strength;
    found.row.set(strength);
    if (!quietly) this.tell();
  }

  nameOf(id) {
    return this.rows.get(id)?.name ?? id;
  }

  // As the service takes it: NAME:STRENGTH,NAME:STRENGTH.
  get adapters() {
    return [...this.rows].filter(([, { strength }]) => strength > 0).map(([id, { strength }]) => `${id}:${strength}`).join(",");
  }

  set(text) {
    const wanted = new Map(text.split(",").filter(Boolean).map((part) => part.split(":")));
    for (const [id, found] of this.rows) {
      found.strength = Number(wanted.get(id) ?? 0);
      found.row.set(found.strength);
    }
  }

  tell() {
    this.onChange(this.adapters);
  }
}
