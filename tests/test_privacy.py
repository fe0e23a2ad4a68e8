"Personal data: what is masked, what is not, and what the rule leaves alone."
import random

import pytest
from needs import needs

from llmbook.text.invented import INVENTED
from llmbook.text.privacy import mask_personal


def masked(text): return mask_personal({'id': 'a', 'text': text})['text']


@pytest.mark.parametrize('text, wanted', [
    ('Write to a.b+c@mail.example.co.uk.', 'Write to <email>.'),
    ('<anna@example.org>', '<<email>>'),
    ('Zoë: zoë@example.com!', 'Zoë: <email>!'),
    ('(anna@example.org,bob@example.net)', '(<email>,<email>)'),
    ('ping 203.0.113.9, twice', 'ping <ip>, twice'),
    ('http://203.0.113.9:8080/x', 'http://<ip>:8080/x'),
    ('[2001:db8::1]', '[<ip>]'),
    ('card 4012888888881881 and 4012-8888-8888-1881', 'card <card> and <card>'),
    ('3782 822463 10005', '<card>'),
    ('SSN 987-65-4321.', 'SSN <identity>.'),
    ('QQ123456C', '<identity>'),
    ('GB82WEST12345698765432', '<identity>'),
    ('Tel. +44 (0)20 7946 0123', 'Tel. <phone>'),
    ('Tel.: (212) 555-0147 or 212.555.0147', 'Tel.: <phone> or <phone>'),
    ('020 7946 0123', '<phone>'),
])
def test_masked(text, wanted):
    assert masked(text) == wanted
    assert masked(wanted) == wanted


@pytest.mark.parametrize('text', [
    'a@b', '@a.com', 'x@W.weight', 'x @ W.T', 'A@B.to(x)', '1.2.3', '1.2.3.4.5', '999.1.2.3', 'version 1.4.2.1', '0.0.0.0',
    '10.1.2.3', '172.31.255.1', '::1', 'fe80::1', '12:30', 'a::b', '4012888888881882', '94012888888881881', '0.4012888888881881',
    '2024-01-15', '1234-56-78901', 'GB82 WEST 1234 5698 7654 33', '1 000 000 000', '+', '+12', 'Room 0123', '555-0147',
    '978-0-306-40615-7', '3.14159265358979', '1,234,567,890', '00 01 02 03 04 05 06', '2001-02-03 04:05', '-0800 123 456',
])
def test_left_alone(text): assert masked(text) == text


def test_addresses_at_the_border_of_a_private_network():
    assert masked('172.15.0.1 172.16.0.1 172.31.0.1 172.32.0.1') == '<ip> 172.16.0.1 172.31.0.1 <ip>'


def test_a_rule_changes_nothing_that_it_was_given():
    document = {'id': 'a', 'text': 'anna@example.org, bob@example.net, 020 7946 0123', 'meta': {'other': 1}}
    before = repr(document)
    result = mask_personal(document)
    assert repr(document) == before
    assert result['meta'] == {'other': 1, 'masked': {'email': 2, 'phone': 1}} and result['id'] == 'a'
    assert mask_personal(document, ('phone',))['text'] == 'anna@example.org, bob@example.net, <phone>'


def test_code_is_left_alone():
    document = {'id': 'a', 'text': 'git@example.org', 'meta': {'format': 'code'}}
    assert mask_personal(document) is document


@pytest.mark.parametrize('kind', INVENTED)
def test_everything_that_dirt_plants_is_found(kind):
    rng = random.Random(7)
    for _ in range(300):
        value = INVENTED[kind](rng)
        assert masked(f'It is {value}.') == f'It is <{kind}>.', value


@pytest.mark.parametrize('text', ['1' * 200_000, '1.' * 100_000, '0 12 ' * 40_000, 'a.' * 100_000 + '@', 'a@' + 'b-' * 100_000,
                                  'GB82' + ' ABCD' * 40_000, '+1 ' * 60_000, '2001:' * 40_000, '@' * 200_000, '(0' * 100_000])
def test_no_text_makes_it_hang(text): masked(text)


@pytest.mark.slow
@needs('faker', 'peers')
def test_what_another_library_makes_up():
    from faker import Faker
    faker = Faker(['en_US', 'en_GB', 'de_DE', 'fr_FR'])
    Faker.seed(0)
    makers = {'email': faker.email, 'ip': faker.ipv4_public, 'card': faker.credit_card_number, 'identity': faker.iban}
    for kind, make in makers.items():
        values = [make() for _ in range(500)]
        found = sum(f'<{kind}>' in masked(f'It is {value}.') for value in values)
        assert found >= 490, (kind, found, [v for v in values if f'<{kind}>' not in masked(f'It is {v}.')][:5])
