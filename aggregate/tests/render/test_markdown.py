"""Tables as a Markdown renderer gets them."""

import re

from markdown_it import MarkdownIt

from aggregate.render import markdown
from aggregate.tests.factory import make_result, table_of

EVIL = "<script>alert(1)</script> | [x](http://evil.example) ![y](//evil.example/p.png) `z` **b** www.evil.example & \\"


def test_markdown_shows_hostile_text_as_text() -> None:
    table = table_of(make_result(device_name=EVIL, engine=EVIL, warnings=[EVIL], failed={("latency", 0): EVIL}))
    text = markdown.of_table(table)
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assert not re.findall(r"<(?!/?(?:table|thead|tbody|tr|th|td|p|br|strong)\b)", rendered)
    assert rendered.count("<tr>") == len(table.rows) + 1
    assert "://" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | [x](http://evil.example)" in rendered
