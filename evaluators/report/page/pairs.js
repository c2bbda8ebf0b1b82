// Editor against editor: a matrix for each setting and aspect, whose metric goes with how an answer counts.
(() => {
  const room = document.getElementById("pairs-room");
  let data, settings, form, matrix;

  const settingOf = each => [each.dataset, each.model, each.protocol, ...(each.edits > 1 ? [each.edits + " edits"] : [])].join(" · ");

  function metricsOf(aspect) {
    return (constants.aspects[aspect] ?? [aspect]).map(base => aspect in constants.aspects ? `${base}.${root.dataset.way}` : base);
  }

  function update({choices}) {
    const at = settings.includes(choices.versus) ? choices.versus : settings[0];
    const aspect = choices.aspect || "Reliability";
    form.querySelector("[name=versus]").value = at;
    form.querySelector("[name=aspect]").value = aspect;
    const found = metricsOf(aspect).map(metric => data.find(each => settingOf(each) === at && each.metric === metric)).find(Boolean);
    if (!found) {
      matrix.replaceChildren(make("p", {class: "told", role: "status"}, `There is no ${metricsOf(aspect)[0]} of two editors in ${at}.`));
      return;
    }
    const cells = new Map(found.pairs.map(each => [each[0] + ":" + each[1], each]));
    const rows = found.editors.map((editor, row) => [editor, ...found.editors.map((other, column) => {
      if (row === column) return "·";
      const there = cells.get(row + ":" + column), back = cells.get(column + ":" + row);
      if (!there && !back) return "-";
      const [, , difference, low, high, n, p, adjusted] = there ?? back;
      if (difference === null) return "-";
      const value = there ? difference : -difference;
      const sure = adjusted !== null && adjusted < 0.05;
      const number = `${value > 0 ? "+" : value < 0 ? "−" : ""}${Math.abs(100 * value).toFixed(1)}`;
      return make("span", {class: "pair", title: `n ${n}, p ${p}`}, sure ? make("strong", {}, number) : number, ` ±${(50 * (high - low)).toFixed(1)}`,
        make("small", {}, `p ${adjusted === null ? "-" : adjusted < 0.0005 ? "< 0.001" : adjusted.toFixed(3)}`),
        make("small", {}, `n ${n}`));
    })]);
    matrix.replaceChildren(makeTable(`${found.metric}: the row's editor less the column's, in percent`, ["editor", ...found.editors], rows),
      make("p", {class: "note"}, `± half the 95 % confidence interval; p after Holm's correction for ${found.pairs.length} comparisons, bold below 0.05.`));
  }

  contents().then(({pairs}) => {
    data = pairs;
    if (!data.length) {
      room.replaceChildren(make("p", {class: "told"}, "There are no two editors to compare yet."));
      return;
    }
    settings = [...new Set(data.map(settingOf))];
    settings.sort((first, second) => second.includes(" · single") - first.includes(" · single"));
    const aspects = Object.keys(constants.aspects);
    const change = event => choose({[event.target.name]: event.target.value}, "pairs");
    const covered = new Set(aspects.flatMap(aspect => constants.aspects[aspect].flatMap(base => constants.ways.map(way => `${base}.${way}`))));
    const others = [...new Set(data.map(each => each.metric))].filter(metric => !covered.has(metric)).sort();
    form = make("div", {class: "control"},
      makeSelect("Setting", "versus", settings.map(each => [each, each]), change),
      makeSelect("Compare", "aspect", [...aspects, ...others].map(each => [each, each]), change));
    matrix = make("div", {});
    room.replaceChildren(form, matrix);
    listeners.push(update);
    update(readState());
  });
})();

tell();
if (readState().section) show(readState().section);
