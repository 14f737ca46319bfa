// A table that sorts, turns pages, shows the columns that are chosen and gives itself as CSV; it draws one page of rows
// however many there are.

import { button, count, h, replace } from "./dom.js";
import { save } from "./api.js";

// columns: {name, cell(row), value(row), number, hidden}; `value` is what sorting and CSV use, `cell` what is shown.
// name: under which the browser remembers the columns that were chosen.
export class Table {
  constructor({ caption, columns, size = 100, empty = "Nothing here.", file = "table.csv", sort = null, name = "" }) {
    Object.assign(this, { columns, size, empty, file, sort, name, rows: [], page: 0 });
    this.left = new Set(JSON.parse((name && localStorage.getItem(`columns ${name}`)) || "[]")); // columns not shown
    this.head = h("tr");
    this.body = h("tbody");
    this.turn = h("div", { class: "turn" });
    this.element = h("div", { class: "table" },
      h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
        h("table", {}, h("caption", { class: "unseen" }, caption), h("thead", {}, this.head), this.body)),
      this.turn);
  }

  show(rows) {
    this.rows = rows;
    this.draw();
  }

  // Boxes to choose columns with; the first one with a name always stays.
  chooser() {
    const some = this.columns.filter((column) => column.name && !column.hidden).slice(1);
    return h("details", { class: "columns" }, h("summary", { class: "button" }, "Columns"), h("fieldset", {},
      h("legend", { class: "unseen" }, "Columns"), some.map(({ name }) => h("label", { class: "choice" },
        h("input", { type: "checkbox", checked: !this.left.has(name), on: { change: (event) => {
          if (event.target.checked) this.left.delete(name);
          else this.left.add(name);
          localStorage.setItem(`columns ${this.name}`, JSON.stringify([...this.left]));
          this.draw();
        } } }), h("span", {}, name)))));
  }

  sorted() {
    if (!this.sort) return this.rows;
    const { value } = this.columns.find((column) => column.name === this.sort.by);
    const sign = this.sort.down ? -1 : 1;
    const rank = (row) => value(row) ?? null;
    return [...this.rows].sort((a, b) => {
      const [x, y] = [rank(a), rank(b)];
      if (x === null || y === null) return (x === null) - (y === null); // what is not known comes last, both ways
      return sign * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y)));
    });
  }

  draw() {
    const focus = document.activeElement?.dataset?.focus;
    const pages = Math.max(1, Math.ceil(this.rows.length / this.size));
    this.page = Math.min(this.page, pages - 1);
    const rows = this.sorted().slice(this.page * this.size, (this.page + 1) * this.size);
    const shown = this.columns.filter((column) => !column.hidden && !this.left.has(column.name));
    replace(this.head, shown.map((column) => this.heading(column)));
    replace(this.body, rows.map((row) => h("tr", {}, shown.map((column) =>
      h("td", { class: column.number ? "number" : column.class }, column.cell ? column.cell(row) : column.value(row))))));
    if (!rows.length) this.body.append(h("tr", {}, h("td", { colspan: shown.length, class: "empty" }, this.empty)));
    replace(this.turn, pages > 1 && [
      button("Previous", () => this.go(-1), { disabled: this.page === 0, "data-focus": "previous" }),
      h("span", {}, `${count(this.page * this.size + 1)}–${count(Math.min(this.rows.length,
        (this.page + 1) * this.size))} of ${count(this.rows.length)}`),
      button("Next", () => this.go(1), { disabled: this.page === pages - 1, "data-focus": "next" }),
    ]);
    if (focus) this.element.querySelector(`[data-focus="${CSS.escape(focus)}"]`)?.focus();
  }

  heading(column) {
    const mine = this.sort?.by === column.name;
    const order = mine ? (this.sort.down ? "descending" : "ascending") : null;
    const inner = column.value && this.sort !== undefined && column.sorts !== false
      ? button([column.name, mine && h("span", { "aria-hidden": "true" }, this.sort.down ? " ↓" : " ↑")], () => {
        this.sort = { by: column.name, down: mine ? !this.sort.down : Boolean(column.number) };
        this.draw();
      }, { class: "sorter", "data-focus": `sort ${column.name}` })
      : column.name;
    return h("th", { scope: "col", class: column.number ? "number" : null, "aria-sort": order }, inner);
  }

  go(by) {
    this.page += by;
    this.draw();
  }

  saveCsv() {
    const named = this.columns.filter((column) => column.value);
    const rows = [named.map((column) => column.name), ...this.sorted().map((row) =>
      named.map((column) => column.value(row)))];
    save(this.file, new Blob([csv(rows)], { type: "text/csv" }));
  }
}

// RFC 4180. A text that a spreadsheet would take for a formula gets an apostrophe in front.
export function csv(rows) {
  const field = (value) => {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    const text = Array.isArray(value) ? value.join(" ") : String(value);
    const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return rows.map((row) => row.map(field).join(",")).join("\r\n") + "\r\n";
}
